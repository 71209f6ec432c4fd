"""Plots of a run: losses, task weights, improvable gaps, conflicts of gradients."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from igb_jax.training.records import GradientRecord

BASE_EPOCH = 1  # from 0; its losses are the base of the gaps, as in IGB


def plot_run(
  folder: Path,
  *,
  task_names: Sequence[str],
  losses: np.ndarray,
  weights: np.ndarray,
  gradients: Sequence[GradientRecord] = (),
  title: str,
) -> list[Path]:
  """Draws the plots of a run.

  Losses and weights float[T, K] are the means of every epoch, the weights those of the
  loss balancer; `gradients` has a record an epoch, or none without a gradient balancer.

  Returns:
    The files: losses.png, weights.png and, if the base epoch was reached, gaps.png
    (the improvable gap L / L_base of IGB's section 3.2). With a gradient balancer also
    gradient_weights.png, conflicts.png (share of conflicting pairs) and cosines.png
    (between the task gradients, in the last epoch).
  """
  figures = {
    "losses": _curves(losses, task_names, title, "training loss", log=True),
    "weights": _curves(weights, task_names, title, "task weight"),
  }
  if len(losses) > BASE_EPOCH:
    gaps = losses / losses[BASE_EPOCH]
    label = f"improvable gap: loss / loss of epoch {BASE_EPOCH + 1}"
    figures["gaps"] = _curves(gaps, task_names, title, label, log=True)
  if gradients:
    values = np.stack([record.weights for record in gradients])
    label = "weight of the task gradient"
    figures["gradient_weights"] = _curves(values, task_names, title, label)
    shares = np.array([[record.conflict_share] for record in gradients])
    label = "share of pairs with a negative cosine"
    figures["conflicts"] = _curves(shares, ["all pairs"], title, label)
    figures["cosines"] = _heat_map(gradients[-1].cosines, task_names, title)
  paths = [folder / f"{name}.png" for name in figures]
  for path, figure in zip(paths, figures.values(), strict=True):
    figure.savefig(path, dpi=120)
  return paths


def _heat_map(cosines: np.ndarray, names: Sequence[str], title: str) -> Figure:
  size = 2.5 + 0.45 * len(names)
  figure = Figure(figsize=(size + 1, size), layout="constrained")
  axes = figure.subplots()
  image = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1)
  axes.set_xticks(range(len(names)), names, rotation=90)
  axes.set_yticks(range(len(names)), names)
  for row, column in np.ndindex(cosines.shape):
    dark = abs(cosines[row, column]) > 0.6
    axes.text(
      column,
      row,
      f"{cosines[row, column]:.2f}",
      ha="center",
      va="center",
      color="white" if dark else "black",
      fontsize="x-small",
    )
  axes.set_title(f"{title}\ncosines of the task gradients, last epoch")
  figure.colorbar(image)
  return figure


def _curves(
  values: np.ndarray, names: Sequence[str], title: str, label: str, *, log: bool = False
) -> Figure:
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
  return figure
