"""Checks of a scene's values. Errors are reasons; whoever reads adds the file."""

import numpy as np

from igb_jax.data.scene import CLASS_NAMES

_MAX_DEPTH = 65.535  # metres, the most that 16 bits of millimetres hold.
_LEAST_DEPTH = 1e-6  # metres, if not unknown; bytes in the wrong order are less.


def check_image(image: np.ndarray) -> np.ndarray:
  """Checks an image of [0, 1] and returns it as u8[H, W, 3]."""
  _check_floats(image)
  if image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(f"shape {image.shape}, expected height x width x 3")
  if image.size and (image.min() < -1e-3 or image.max() > 1 + 1e-3):
    raise ValueError(
      f"values {image.min():.4g} to {image.max():.4g}, expected 0 to 1; if they are "
      "bytes, divide by 255"
    )
  return np.rint(255 * image.clip(0, 1)).astype(np.uint8)


def check_label(label: np.ndarray) -> np.ndarray:
  """Checks labels with -1 ignored and returns them as i32[H, W]."""
  if label.ndim == 3 and label.shape[2] == 1:
    label = label[..., 0]
  if label.ndim != 2:
    raise ValueError(f"shape {label.shape}, expected height x width")
  if label.dtype.kind not in "iu":
    _check_floats(label)
    if (label != np.rint(label)).any():
      raise ValueError("labels that are not whole numbers")
  last = len(CLASS_NAMES) - 1
  if label.size and (label.min() < -1 or label.max() > last):
    raise ValueError(
      f"labels {label.min():g} to {label.max():g}, expected -1 (ignored) to {last}"
      f"{from_one(label, -1)}"
    )
  return label.astype(np.int32)


def from_one(label: np.ndarray, ignored: int) -> str:
  """What to do if labels count the classes from 1; nothing if they cannot."""
  count = len(CLASS_NAMES)
  if label.min() < 0 or label.max() != count:
    return ""
  return (
    f"; are they 1 to {count} with 0 for unlabelled: store label - 1, and {ignored} "
    "for 0"
  )


def check_depth(depth: np.ndarray) -> np.ndarray:
  """Checks depth in metres and returns it as f32[H, W]."""
  _check_floats(depth)
  if depth.ndim == 3 and depth.shape[2] == 1:
    depth = depth[..., 0]
  if depth.ndim != 2:
    raise ValueError(f"shape {depth.shape}, expected height x width (x 1)")
  if (depth < 0).any():
    raise ValueError(f"negative depth ({depth.min():.4g})")
  if ((depth > 0) & (depth < _LEAST_DEPTH)).any():
    raise ValueError(
      f"depth of {depth[depth > 0].min():.4g} m, expected 0 (unknown) or at least "
      f"{_LEAST_DEPTH:g}"
    )
  if (depth > _MAX_DEPTH).any():
    raise ValueError(
      f"depth of {depth.max():.4g} m, expected at most {_MAX_DEPTH}; is it in metres? "
      "Of millimetres store a thousandth"
    )
  return depth.astype(np.float32)


def check_normal(normal: np.ndarray) -> np.ndarray:
  """Checks normals and returns them as f32[H, W, 3]."""
  _check_floats(normal)
  if normal.ndim != 3 or normal.shape[2] != 3:
    raise ValueError(f"shape {normal.shape}, expected height x width x 3")
  if normal.size and np.abs(normal).max() > 1 + 1e-2:
    raise ValueError(
      f"values {normal.min():.4g} to {normal.max():.4g}, expected -1 to 1; are they "
      "bytes? Then store n / 127.5 - 1"
    )
  return normal.astype(np.float32)


def _check_floats(values: np.ndarray) -> None:
  if not np.issubdtype(values.dtype, np.floating):
    raise ValueError(f"type {values.dtype}, expected floating point")
  if not np.isfinite(values).all():
    raise ValueError("values that are not finite")
