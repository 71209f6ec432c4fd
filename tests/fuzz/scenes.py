"""What the formats of scenes have in common."""

import numpy as np

from igb_jax.data.nyuv2 import CLASS_NAMES
from igb_jax.data.nyuv2._checking import check_all, in_order
from igb_jax.data.nyuv2._records import decode, prepare
from igb_jax.data.nyuv2.sources import recognise

HEIGHT, WIDTH = 24, 32
PARTS = ("train", "test")


def fields(seed):
  """A scene: image u8, label with -1, depth in whole millimetres, unit normals."""
  rng = np.random.default_rng(seed)
  ramp = 10 * np.arange(WIDTH) + 20 * np.arange(HEIGHT)[:, None]
  normal = rng.normal(size=(HEIGHT, WIDTH, 3))
  return {
    "image": np.repeat(rng.integers(0, 256, (HEIGHT, WIDTH // 4, 3), np.uint8), 4, 1),
    "label": rng.integers(-1, 13, (HEIGHT, WIDTH)),
    "depth": (2000 + ramp) / 1000,
    "normal": normal / np.linalg.norm(normal, axis=-1, keepdims=True),
  }


def read(folder):
  """What `nyuv2.load` and the scenes that it gives do, but for the cache."""
  source = recognise(folder)
  check_all(source, progress=False)
  found = {}
  for scene in in_order(source):
    prepared = prepare(scene, source.exact_depth)
    for field, values in decode(prepared)._asdict().items():
      found[f"{scene.name} {field}"] = values
  return found


def check(found):
  for name, values in found.items():
    field = name.rpartition(" ")[2]
    assert np.isfinite(values).all()
    assert values.shape[:2] == next(iter(found.values())).shape[:2]
    if field == "image":
      assert 0 <= values.min() <= values.max() <= 1
    elif field == "label":
      assert -1 <= values.min() <= values.max() < len(CLASS_NAMES)
    elif field == "depth":
      assert 0 <= values.min() <= values.max() < 65.6
    else:
      length = np.linalg.norm(values, axis=-1)
      assert np.all((length == 0) | (np.abs(length - 1) < 1e-4))
