"""Surface normals from depth, by a plane fitted around every pixel.

A plane is linear in inverse depth. With x' = (u - cx) / fx and y' = (v - cy) / fy,

    normal . (x', y', 1) z = d      is      1 / z = A + B x' + C y',

and (A, B, C) is the normal but for its length. So around each pixel 1 / z is fitted
by least squares to the pixels of a window whose depth is within 4% of the centre's,
which are those of its own surface. The errors of the sensor behind NYUv2 are about
even in 1 / z, which makes least squares the right fit for it.

Axes are those of the camera: x right, y up, z towards the camera. A normal faces the
camera: its product with the ray from the camera is negative.
"""

import numpy as np

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels, the centre of the first pixel being at 0, 0."""

SAME_SURFACE = 0.04
"""Neighbours count whose depth differs by no more than this share of the centre's."""

KNOWN_LENGTHS = (0.5, 1.5)
"""Stored vectors of other lengths say that there is no normal."""

_LEAST_SHARE = 0.1  # of the window's pixels that must count.
_LEAST_SPREAD = 0.055  # of the window's side: deviation in the narrowest direction.
_MOST_RESIDUAL = 0.012  # of the centre's inverse depth, root of the mean square.
_SMALL_PRODUCT = 200_000  # multiplications; OpenBLAS takes threads from 262,144 on.


def window_size(height: int) -> int:
  """Side of the window: 31 pixels at 480 rows, in proportion elsewhere, odd.

  Args:
    height: Rows of the image.

  Returns:
    The side in pixels, at least 5.

  Example:
    >>> [window_size(height) for height in (480, 288, 48)]
    [31, 19, 5]
  """
  return max(5, 2 * round((31 * height / 480 - 1) / 2) + 1)


def unit_normals(stored: np.ndarray) -> np.ndarray:
  """Brings stored normals to length 1, and to 0 where they say that there is none.

  Args:
    stored: f32[H, W, 3], of any length.

  Returns:
    f32[H, W, 3], of length 1 or 0.

  Example:
    >>> unit_normals(np.array([[[0.0, 0.8, 0.0], [0.1, 0.1, 0.1]]])).tolist()
    [[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]
  """
  length = np.linalg.norm(stored, axis=-1, keepdims=True)
  least, most = KNOWN_LENGTHS
  known = (length > least) & (length < most)
  return np.where(known, stored / np.where(known, length, 1), np.zeros_like(stored))


def normals_from_depth(depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
  """Fits a plane around every pixel and returns the normals.

  There is no normal (it is 0, 0, 0) where the depth is unknown, where less than a
  tenth of the window is of the same surface, where what is of it lies almost on a
  line, and where it is not flat: where 1 / z deviates from the plane by more than
  1.2% in the root of the mean square.

  Args:
    depth: f32[H, W], distance from the camera's plane (z) in metres, 0 unknown.
    intrinsics: fx, fy, cx, cy in pixels of this image.

  Returns:
    f32[H, W, 3], of length 1 or 0.

  Raises:
    ValueError: If the depth is not a matrix of finite numbers that are not negative,
      or a focal length is not positive.

  Example:
    >>> wall = np.full((48, 64), 2.0, np.float32)
    >>> float(normals_from_depth(wall, (60.0, 60.0, 31.5, 23.5))[24, 32, 2])
    1.0
  """
  depth = np.asarray(depth)
  if depth.ndim != 2:
    raise ValueError(f"depth must be a matrix, got shape {depth.shape}")
  if not np.isfinite(depth).all() or (depth < 0).any():
    raise ValueError("depth must be finite and not negative")
  fx, fy, cx, cy = intrinsics
  if not (fx > 0 and fy > 0):
    raise ValueError(f"focal lengths must be positive, got {fx} and {fy}")
  height, width = depth.shape
  side = window_size(height)
  known = depth > 0
  inverse = np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float32)

  moments = _moments(inverse, side)
  count = moments[0]
  mx, my, mxx, mxy, myy, mq, mxq, myq, mqq = moments[1:] / np.maximum(count, 1)
  # Covariances over the neighbours of x, y (pixels from the centre) and 1 / z.
  sxx, sxy, syy = mxx - mx * mx, mxy - mx * my, myy - my * my
  sxq, syq, sqq = mxq - mx * mq, myq - my * mq, mqq - mq * mq
  narrowest = (sxx + syy - np.hypot(sxx - syy, 2 * sxy)) / 2
  fits = known & (count >= _LEAST_SHARE * side**2)
  fits &= narrowest >= (_LEAST_SPREAD * side) ** 2

  determinant = np.where(fits, sxx * syy - sxy * sxy, 1)
  slope_x = (syy * sxq - sxy * syq) / determinant
  slope_y = (sxx * syq - sxy * sxq) / determinant
  fitted = inverse + mq - slope_x * mx - slope_y * my
  residual = sqq - slope_x * sxq - slope_y * syq
  fits &= (residual <= (_MOST_RESIDUAL * inverse) ** 2) & (fitted > 0)

  rows, columns = np.mgrid[:height, :width]
  towards = fitted + slope_x * (cx - columns) + slope_y * (cy - rows)
  # (B, C, A) points away from the camera, with y down and z away from it.
  normal = np.stack([-slope_x * fx, slope_y * fy, towards], axis=-1)
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  fits = fits[..., None] & (length > 0)
  return np.where(fits, normal / np.where(fits, length, 1), 0).astype(np.float32)


def _moments(inverse: np.ndarray, side: int) -> np.ndarray:
  """Sums over the neighbours that are of the same surface as a pixel.

  Args:
    inverse: f32[H, W], inverse depth, 0 unknown.
    side: Side of the window.

  Returns:
    f64[10, H, W], the sums of 1, x, y, x^2, xy, y^2, q, xq, yq and q^2 with x and y in
    pixels and q the inverse depth, all less those of the centre.
  """
  height, width = inverse.shape
  reach = side // 2
  padded = np.pad(inverse, reach)
  windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
  offsets = np.arange(-reach, reach + 1, dtype=np.float32)
  x, y = np.tile(offsets, side), np.repeat(offsets, side)
  monomials = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
  least = inverse / np.float32(1 + SAME_SURFACE)
  most = inverse / np.float32(1 - SAME_SURFACE)
  sums = np.empty((height, width, 10))
  # Always into the same memory, so that it stays in the cache, and in products too
  # small for the linear algebra library to start threads, which would take turns.
  length = max(1, min(width, _SMALL_PRODUCT // monomials.size))
  memory = np.empty((2, length, side * side), np.float32)
  for row in range(height):
    for start in range(0, width, length):
      pixels = slice(start, start + length)
      centre = inverse[row, pixels, None]
      q, weight = memory[:, : len(centre)]
      q.reshape(-1, side, side)[:] = windows[row, pixels]
      same = (q >= least[row, pixels, None]) & (q <= most[row, pixels, None])
      weight[:] = same
      q -= centre  # small, which float32 needs.
      q *= weight
      sums[row, pixels, :6] = weight @ monomials
      sums[row, pixels, 6:9] = q @ monomials[:, :3]
      sums[row, pixels, 9] = np.einsum("ij,ij->i", q, q)
  return np.moveaxis(sums, -1, 0)
