"""A scene as the cache holds it."""

import numpy as np

from igb_jax.data.normals import normals_from_depth, unit_normals
from igb_jax.data.nyuv2.tables import scaled_intrinsics
from igb_jax.data.nyuv2.types import SceneFile
from igb_jax.data.scene import IGNORED, Scene

NOTHING = {"label": 255, "depth": 0, "normal": 0}
"""What a pixel without a label, a depth or a normal has."""

_NO_LABEL = NOTHING["label"]
_NORMAL_SCALE = 1023  # Off by half of 1 / 1023 in x, y and z is 0.05 degrees at most.


def prepare(scene: SceneFile, exact_depth: bool) -> dict[str, np.ndarray]:
  """Reads a scene, derives its normals if need be, and encodes it."""
  raw, problems = scene.read()
  if raw is None:  # It was all right when it was checked.
    raise ValueError("\n  ".join(problems))
  if raw.normal is None:
    normal = normals_from_depth(raw.depth, scaled_intrinsics(*raw.depth.shape))
  else:
    normal = unit_normals(raw.normal)
  depth = raw.depth if exact_depth else np.rint(1000 * raw.depth).astype(np.uint16)
  return {
    "image": raw.image,
    "label": np.where(raw.label == IGNORED, _NO_LABEL, raw.label).astype(np.uint8),
    "depth": depth,
    "normal": np.rint(_NORMAL_SCALE * normal).astype(np.int16),
  }


def decode(record: dict[str, np.ndarray]) -> Scene:
  """Makes a scene of what `prepare` encoded."""
  label, depth = record["label"], record["depth"]
  if depth.dtype == np.uint16:
    depth = depth.astype(np.float32) / np.float32(1000)
  normal = record["normal"].astype(np.float32)
  length = np.sqrt(np.einsum("ijk,ijk->ij", normal, normal))[..., None]
  return Scene(
    image=record["image"].astype(np.float32) / np.float32(255),
    label=np.where(label == _NO_LABEL, IGNORED, label.astype(np.int32)),
    depth=depth,
    normal=normal / np.maximum(length, 1),
  )
