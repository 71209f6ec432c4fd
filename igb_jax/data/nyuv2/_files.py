"""The files of array and image folders, one for each field of a scene."""

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from igb_jax.data.nyuv2 import _values
from igb_jax.data.scene import CLASS_NAMES

_MOST_PIXELS = 2**24


def by(shape: tuple[int, ...]) -> str:
  """Rows and columns, for errors."""
  return f"{shape[0]} x {shape[1]}"


def _read_npy(path: Path, check: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
  _check_is_file(path)
  try:
    with path.open("rb") as file:
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
  except Exception as error:  # there are many ways to be damaged
    raise ValueError(f"cannot be read ({error})") from error
  return check(values)


_NPY_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def _decode(
  path: Path, modes: dict[str, str], formats: tuple[str, ...] = ("PNG",)
) -> np.ndarray:
  """Reads an image file.

  Args:
    path: The file.
    modes: Pillow's modes that will do -> what to call them.
    formats: Pillow's formats that will do; for others it may start programs.

  Raises:
    ValueError: If it is damaged, too large, or has another format or mode.
  """
  from PIL import Image

  _check_is_file(path)
  try:
    with Image.open(path, formats=formats) as image:
      if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"{by(image.size[::-1])}, at most {_MOST_PIXELS} pixels")
      image.verify()  # of a PNG the checksums and the end, which decoding does not
    with Image.open(path, formats=formats) as image:
      mode = image.mode
      pixels = np.array(image)
  except Exception as error:  # there are many ways to be damaged
    raise ValueError(f"cannot be read ({error})") from error
  if mode not in modes:
    raise ValueError(f"mode {mode}, expected {next(iter(modes.values()))}")
  return pixels


def _check_is_file(path: Path) -> None:
  """Refuses pipes, which are waited for, and devices, which may have no end."""
  if path.exists() and not path.is_file():
    raise ValueError("is not a file")


_COLOUR = {"RGB": "RGB, 8 bits each"}
_BYTES = {"L": "L, one channel of 8 bits", "P": ""}
_WORDS = {"I;16": "I;16, one channel of 16 bits", "I;16B": "", "I": ""}


def _read_label_png(path: Path) -> np.ndarray:
  pixels = _decode(path, _BYTES)
  last = len(CLASS_NAMES) - 1
  wrong = (pixels > last) & (pixels != 255)
  if wrong.any():
    raise ValueError(
      f"label {pixels[wrong].max()}, expected 0 to {last}, or 255 (ignored)"
      f"{_values.from_one(pixels[pixels != 255], 255)}"
    )
  return np.where(pixels == 255, -1, pixels.astype(np.int32))


def _read_depth_png(path: Path) -> np.ndarray:
  return _values.check_depth(
    _decode(path, _WORDS).astype(np.float32) / np.float32(1000)
  )


def _read_normal_png(path: Path) -> np.ndarray:
  pixels = _decode(path, _COLOUR)
  return _values.check_normal(pixels.astype(np.float32) / np.float32(127.5) - 1)


FIELD_READERS: dict[tuple[str, str], Callable[[Path], np.ndarray]] = {
  ("arrays", "image"): functools.partial(_read_npy, check=_values.check_image),
  ("arrays", "label"): functools.partial(_read_npy, check=_values.check_label),
  ("arrays", "depth"): functools.partial(_read_npy, check=_values.check_depth),
  ("arrays", "normal"): functools.partial(_read_npy, check=_values.check_normal),
  ("images", "image"): functools.partial(
    _decode, modes=_COLOUR, formats=("JPEG", "PNG")
  ),
  ("images", "label"): _read_label_png,
  ("images", "depth"): _read_depth_png,
  ("images", "normal"): _read_normal_png,
}
