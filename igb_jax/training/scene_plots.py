"""Pictures of scenes: images, labels, depth and normals beside what a net predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLUMNS = (
  "image", "label", "predicted", "depth", "predicted", "normals", "predicted"
)  # fmt: skip


def plot_predictions(
  path: Path, scenes: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]
) -> None:
  """Draws one row per scene: the image, and each target beside its prediction.

  Args:
    path: the path of the PNG file.
    scenes: each with image f[H, W, 3] in [0, 1], label i[H, W], depth f[H, W] in metres
      and normal f[H, W, 3].
    predictions: each with segmentation f[H, W, C], depth f[H, W] and normal f[H, W, 3].
    names: the names of the C classes.
  """
  palette = _palette(len(names))
  rows = len(scenes)
  figure = Figure(figsize=(2.3 * len(COLUMNS), 1.85 * rows + 0.6), layout="constrained")
  grid = figure.subplots(rows, len(COLUMNS), squeeze=False)
  for axes_of_row, scene, prediction in zip(grid, scenes, predictions, strict=True):
    known = scene.depth > 0
    nearest, farthest = (
      np.percentile(scene.depth[known], (1, 99)) if known.any() else (0, 1)
    )
    depth_range = {"cmap": "viridis_r", "vmin": nearest, "vmax": farthest}
    pictures = (
      (scene.image, {}),
      (palette[scene.label], {}),
      (palette[prediction.segmentation.argmax(axis=-1)], {}),
      (np.ma.masked_where(~known, scene.depth), depth_range),
      (prediction.depth, depth_range),
      (_colours_of(scene.normal), {}),
      (_colours_of(prediction.normal), {}),
    )
    for axes, (picture, options) in zip(axes_of_row, pictures, strict=True):
      axes.imshow(picture, interpolation="nearest", **options)
      axes.set_axis_off()
  for axes, title in zip(grid[0], COLUMNS, strict=True):
    axes.set_title(title, fontsize="small")
  figure.legend(
    handles=[Patch(color=palette[k], label=name) for k, name in enumerate(names)],
    loc="outside lower center",
    ncols=len(names),
    fontsize="x-small",
    handlelength=1,
    columnspacing=0.8,
  )
  figure.savefig(path, dpi=100)


def _palette(num_classes: int) -> np.ndarray:
  """f[C + 1, 3]; the last, which label -1 picks, is black."""
  colours = [colormaps["tab20"](k % 20)[:3] for k in range(num_classes)]
  return np.array([*colours, (0.0, 0.0, 0.0)])


def _colours_of(normal: np.ndarray) -> np.ndarray:
  """Red x, green y, blue z; black where the normal is unknown."""
  known = (normal != 0).any(axis=-1, keepdims=True)
  return np.where(known, np.clip((normal + 1) / 2, 0, 1), 0)
