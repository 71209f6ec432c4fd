"""The files of array and image folders, one for each field of a scene."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from igb_jax.data.nyuv2._values import (
  check_depth,
  check_image,
  check_label,
  check_normal,
  from_one,
)
from igb_jax.data.scene import CLASS_NAMES

_MOST_PIXELS = 2**24
_NPY_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
_CHECKS = {
  "image": check_image,
  "label": check_label,
  "depth": check_depth,
  "normal": check_normal,
}
# Pillow's modes that will do -> what to call them.
_COLOUR = {"RGB": "RGB, 8 bits each"}
_MODES = {
  "image": _COLOUR,
  "label": {"L": "L, one channel of 8 bits", "P": ""},
  "depth": {"I;16": "I;16, one channel of 16 bits", "I;16B": "", "I": ""},
  "normal": _COLOUR,
}


def by(shape: tuple[int, ...]) -> str:
  """Rows and columns, for errors."""
  return f"{shape[0]} x {shape[1]}"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
  """Makes all errors of reading a file a `ValueError`."""
  if path.exists() and not path.is_file():  # pipes make wait, devices may have no end
    raise ValueError("is not a file")
  try:
    yield
  except Exception as error:  # there are many ways to be damaged
    raise ValueError(f"cannot be read ({error})") from error


def read_array(path: Path, field: str) -> np.ndarray:
  """Reads and checks an npy file; a `ValueError` says what is wrong, not where."""
  with _reading(path), path.open("rb") as file:
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADERS:
      raise ValueError(f"version {version} of the format")
    shape, _, dtype = _NPY_HEADERS[version](file)
    # Compared before anything of the size that the header tells is allocated.
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    size = os.fstat(file.fileno()).st_size
    if size != expected:
      raise ValueError(f"{size} bytes, {expected} by its header")
    file.seek(0)
    values = np.lib.format.read_array(file, allow_pickle=False)
  return _CHECKS[field](values)


def read_image(path: Path, field: str) -> np.ndarray:
  """Reads and checks a PNG or JPEG file; a `ValueError` says what is wrong, not where.

  Only images may be JPEG. Pillow is not asked for other formats, for some of which it
  starts programs.
  """
  from PIL import Image

  formats = ("JPEG", "PNG") if field == "image" else ("PNG",)
  with _reading(path):
    with Image.open(path, formats=formats) as image:
      if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{by(image.size[::-1])}, at most {_MOST_PIXELS} pixels")
      image.verify()  # of a PNG the checksums and the end, which decoding does not
    with Image.open(path, formats=formats) as image:
      mode = image.mode
      pixels = np.array(image)
  if mode not in _MODES[field]:
    raise ValueError(f"mode {mode}, expected {next(iter(_MODES[field].values()))}")
  if field == "label":
    return _classes(pixels)
  if field == "depth":
    return check_depth(pixels.astype(np.float32) / np.float32(1000))
  if field == "normal":
    return check_normal(pixels.astype(np.float32) / np.float32(127.5) - 1)
  return pixels


def _classes(pixels: np.ndarray) -> np.ndarray:
  """Labels of 255 where they are ignored, as i32 of -1 there."""
  last = len(CLASS_NAMES) - 1
  wrong = (pixels > last) & (pixels != 255)
  if wrong.any():
    raise ValueError(
      f"label {pixels[wrong].max()}, expected 0 to {last}, or 255 (ignored)"
      f"{from_one(pixels[pixels != 255], 255)}"
    )
  return np.where(pixels == 255, -1, pixels.astype(np.int32))
