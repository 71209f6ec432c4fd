"""Plots of a run: losses, task weights and improvable gaps over the epochs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BASE_EPOCH = 1  # from 0; its losses are the base of the gaps, as in IGB


def plot_run(
  folder: Path,
  *,
  task_names: Sequence[str],
  losses: np.ndarray,
  weights: np.ndarray,
  title: str,
) -> list[Path]:
  """Draws the plots of a run.

  Args:
    folder: where the PNG files go.
    task_names: names of the K tasks.
    losses: float[T, K], mean losses of every epoch.
    weights: float[T, K], mean task weights of every epoch.
    title: of the plots.

  Returns:
    The files: losses.png, weights.png and, if the base epoch was reached, gaps.png
    (the improvable gap L / L_base of IGB's section 3.2).
  """
  paths = [
    _plot(folder / "losses.png", losses, task_names, title, "training loss", log=True),
    _plot(folder / "weights.png", weights, task_names, title, "task weight"),
  ]
  if len(losses) > BASE_EPOCH:
    gaps = losses / losses[BASE_EPOCH]
    label = f"improvable gap: loss / loss of epoch {BASE_EPOCH + 1}"
    paths.append(_plot(folder / "gaps.png", gaps, task_names, title, label, log=True))
  return paths


def _plot(
  path: Path,
  values: np.ndarray,
  names: Sequence[str],
  title: str,
  label: str,
  *,
  log: bool = False,
) -> Path:
  figure = Figure(figsize=(7, 4.5), layout="constrained")
  axes = figure.subplots()
  styles = ["-", "--"]  # more tasks than a palette has colours
  for index, name in enumerate(names):
    axes.plot(
      np.arange(1, len(values) + 1),
      values[:, index],
      styles[index // 10 % 2],
      marker="." if len(values) < 30 else None,
      label=name,
    )
  if log:
    axes.set_yscale("log")
  axes.set(xlabel="epoch", ylabel=label, title=title)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.grid(alpha=0.3)
  axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
  figure.savefig(path, dpi=120)
  return path
