"""A sheet of made rooms, and how many of them are made in a second.

    python -m benchmarks.rooms_sheet --out docs/figures/rooms.png

Every scene has its image, classes, depth and normals (red right, green up, blue
towards the camera) side by side. The speed is that of one process, and of several
at once. On a machine with other work, wall-clock time says little: the CPU time is
what a scene costs.
"""

import dataclasses
import multiprocessing
import os
import platform
import time
from pathlib import Path

import numpy as np
import tyro
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from igb_jax.data import rooms

PALETTE = (
  np.array(
    [
      (232, 124, 160),  # bed
      (150, 80, 40),  # books
      (245, 240, 225),  # ceiling
      (225, 60, 50),  # chair
      (130, 110, 90),  # floor
      (200, 150, 60),  # furniture
      (95, 185, 80),  # objects
      (150, 90, 190),  # picture
      (240, 140, 40),  # sofa
      (60, 150, 150),  # table
      (25, 25, 30),  # tv
      (190, 195, 205),  # wall
      (90, 165, 235),  # window
    ]
  )
  / 255
)


@dataclasses.dataclass(frozen=True)
class Options:
  """Draws made rooms and times their making."""

  out: Path | None = None
  """Where the sheet goes; without it only the speed is measured."""
  indices: tuple[int, ...] = tuple(range(9))
  """The scenes of the sheet."""
  seed: int = 0
  """Of the scenes."""
  height: int = 144
  """Rows of the pictures on the sheet."""
  width: int = 192
  """Columns of the pictures on the sheet."""
  timed: int = 200
  """Scenes of 96 x 128 that each process makes; 0 leaves the timing out."""
  processes: int = 2
  """How many processes work at once."""


def panels(scene: rooms.Scene) -> list[np.ndarray]:
  """Image, classes, depth and normals as pictures, float[H, W, 3]."""
  depth = np.clip((scene.depth - 0.5) / 5.5, 0, 1)
  return [
    scene.image,
    PALETTE[scene.label],
    colormaps["magma_r"](depth)[..., :3],
    (scene.normal + 1) / 2,
  ]


def sheet(scenes: list[rooms.Scene]) -> Figure:
  """One scene a line.

  Args:
    scenes: what is drawn.
  """
  height, width = scenes[0].label.shape
  gap, dpi = 4, 100
  top, bottom = 0.3, 0.6  # inches for the titles and the classes
  across = (4 * (width + gap) - gap) / dpi
  down = (len(scenes) * (height + gap) - gap) / dpi
  figure = Figure(figsize=(across, top + down + bottom), dpi=dpi)
  grid = figure.subplots(len(scenes), 4, squeeze=False)
  figure.subplots_adjust(
    left=0,
    right=1,
    bottom=bottom / (top + down + bottom),
    top=1 - top / (top + down + bottom),
    wspace=gap / width,
    hspace=gap / height,
  )
  for row, scene in zip(grid, scenes, strict=True):
    for axes, panel in zip(row, panels(scene), strict=True):
      axes.imshow(panel, interpolation="nearest", aspect="auto")
      axes.set_axis_off()
  for axes, title in zip(grid[0], ("image", "label", "depth", "normal"), strict=True):
    axes.set_title(title, fontsize=12)
  figure.legend(
    handles=[
      Patch(facecolor=tuple(colour), edgecolor="grey", label=name)
      for name, colour in zip(rooms.CLASSES, PALETTE, strict=True)
    ],
    loc="lower center",
    ncols=7,
    frameon=False,
    fontsize=9,
  )
  return figure


def seconds_per_scene(first: int, count: int) -> np.ndarray:
  """Seconds of each of some scenes of 96 x 128, f64[count, 2]: wall-clock and CPU.

  Args:
    first: index of the first.
    count: how many.
  """
  seconds = []
  for index in range(first, first + count):
    start = time.perf_counter(), time.process_time()
    rooms.scene(index)
    seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
  return np.array(seconds)


def report_speed(count: int, processes: int) -> None:
  """Prints how many scenes are made in a second.

  Args:
    count: scenes of each process.
    processes: how many work at once.
  """
  seconds_per_scene(0, 5)  # warms up
  wall, cpu = seconds_per_scene(1000, count).T * 1e3
  print(
    f"Rooms of 96 x 128, {platform.machine()}, {os.cpu_count()} cores, load "
    f"{os.getloadavg()[0]:.1f}, NumPy {np.__version__}, {count} scenes a process\n"
    f"one process: ms a scene, median [least, most]: wall {np.median(wall):.1f} "
    f"[{wall.min():.1f}, {wall.max():.1f}], CPU {np.median(cpu):.1f} "
    f"[{cpu.min():.1f}, {cpu.max():.1f}]; {1e3 / wall.mean():.0f} scenes a second"
  )
  with multiprocessing.get_context("spawn").Pool(processes) as pool:
    starts = [(10_000 * number, count) for number in range(1, processes + 1)]
    pool.starmap(seconds_per_scene, [(0, 5)] * processes, chunksize=1)
    start = time.perf_counter()
    pool.starmap(seconds_per_scene, starts, chunksize=1)
    rate = processes * count / (time.perf_counter() - start)
  print(f"{processes} processes: {rate:.0f} scenes a second")


def report(options: Options) -> None:
  """Draws the sheet and measures."""
  if options.out:
    scenes = [
      rooms.scene(index, seed=options.seed, height=options.height, width=options.width)
      for index in options.indices
    ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(scenes).savefig(options.out)
  if options.timed:
    report_speed(options.timed, options.processes)


def main() -> None:
  """Reads the command line and reports."""
  report(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
  main()
