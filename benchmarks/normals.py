"""Times the normals of all images in a folder, in one process.

    python -m benchmarks.normals --source DIR

The folder or file has one of the formats of `igb_jax.data.nyuv2.sources`. Reading the
images is not counted.
"""

import dataclasses
import os
import platform
import time
from pathlib import Path

import numpy as np
import tyro

from igb_jax.data.normals import normals_from_depth, window_size
from igb_jax.data.nyuv2.sources import recognise
from igb_jax.data.nyuv2.tables import scaled_intrinsics
from igb_jax.data.nyuv2.types import PARTS


@dataclasses.dataclass(frozen=True)
class Options:
  """Times the normals of all images in a folder."""

  source: Path
  """Folder or file with the scenes."""
  limit: int | None = None
  """Number of images, all if not given."""


def main() -> None:
  """Measures and prints."""
  options = tyro.cli(Options, description=__doc__)
  source = recognise(options.source)
  scenes = [scene for part in PARTS for scene in source.scenes.get(part, ())]
  seconds, without = [], []
  size = (0, 0)
  for scene in scenes[: options.limit]:
    raw, problems = scene.read()
    if raw is None:
      raise ValueError("; ".join(problems) or f"{scene.name}: files are missing")
    size = raw.depth.shape[0], raw.depth.shape[1]
    intrinsics = scaled_intrinsics(*size)
    start = time.perf_counter()
    normal = normals_from_depth(raw.depth, intrinsics)
    seconds.append(time.perf_counter() - start)
    without.append(1 - np.linalg.norm(normal, axis=-1).mean())
  print(
    f"{len(seconds)} images of {size[0]} x {size[1]}, window {window_size(size[0])}; "
    f"{platform.machine()}, {os.cpu_count()} cores, Python "
    f"{platform.python_version()}, numpy {np.__version__}\n"
    f"{sum(seconds):.1f} s in all; one image: median {np.median(seconds):.3f} s, least "
    f"{min(seconds):.3f} s, most {max(seconds):.3f} s\n"
    f"pixels without a normal: {100 * np.mean(without):.1f}%"
  )


if __name__ == "__main__":
  main()
