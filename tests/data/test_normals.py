"""Normals from depth, against surfaces whose normals are known."""

import numpy as np
import pytest

from igb_jax.data.normals import normals_from_depth, window_size

HEIGHT, WIDTH = 288, 384
INTRINSICS = (355.15, 350.37, 195.48, 141.46)


def rays(height=HEIGHT, width=WIDTH, intrinsics=INTRINSICS):
  """f64[H, W, 3], points at depth 1: x right, y up, z towards the camera."""
  fx, fy, cx, cy = intrinsics
  v, u = np.mgrid[:height, :width]
  return np.stack([(u - cx) / fx, (cy - v) / fy, -np.ones((height, width))], axis=-1)


def plane(normal, distance=1.5, farthest=9.0):
  """Depth of a plane, 0 where it is behind the camera or far away."""
  product = rays() @ normal
  depth = np.where(product < 0, distance / np.maximum(-product, 1e-9), 0)
  return np.where(depth < farthest, depth, 0).astype(np.float32)


def sphere(centre, radius):
  """Depth of a sphere and its normals, 0 beside it."""
  points = rays()
  a, b = np.sum(points**2, -1), points @ centre
  root = b**2 - a * (centre @ centre - radius**2)
  depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
  normal = (points * depth[..., None] - centre) / radius
  return depth.astype(np.float32), np.where(root[..., None] > 0, normal, 0)


def angles(found, expected):
  """Degrees between unit vectors."""
  return np.degrees(np.arccos(np.clip(np.sum(found * expected, -1), -1, 1)))


def has_normal(found):
  return np.any(found != 0, axis=-1)


def assert_unit_and_facing(found, intrinsics=INTRINSICS):
  known = has_normal(found)
  np.testing.assert_allclose(np.linalg.norm(found[known], axis=-1), 1, atol=1e-5)
  height, width, _ = found.shape
  towards = np.sum(found * rays(height, width, intrinsics), -1)
  assert (towards[known] < 0).all()


TILTS = {
  "wall ahead": (0, 0, 1),
  "wall at the left": (0.9, 0.1, 0.5),
  "wall at the right": (-0.6, 0, 0.8),
  "floor": (0, 1, 0.3),
  "floor, grazing": (0, 1, 0.05),
  "ceiling": (0, -1, 0.2),
  "roof": (0.3, -0.7, 0.6),
}


@pytest.fixture(params=list(TILTS.values()), ids=list(TILTS))
def normal(request):
  return np.array(request.param) / np.linalg.norm(request.param)


def test_planes_within_a_tenth_of_a_degree(normal):
  depth = plane(normal)
  found = normals_from_depth(depth, INTRINSICS)
  known = has_normal(found)
  assert not known[depth == 0].any()
  assert known[depth > 0].mean() > 0.98
  assert angles(found, normal)[known].max() < 0.1
  assert_unit_and_facing(found)


def test_planes_in_millimetres_within_a_degree(normal):
  depth = np.rint(1000 * plane(normal)) / np.float32(1000)
  found = normals_from_depth(depth, INTRINSICS)
  assert angles(found, normal)[has_normal(found)].max() < 1


def test_noise_does_not_turn_normals_away(normal):
  depth = plane(normal)
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 0.0014, depth.shape)  # per metre: 13 mm at 3 m, a Kinect's.
  known = depth > 0
  inverse = 1 / np.where(known, depth, 1) + noise
  noisy = np.where(known & (inverse > 0.05), 1 / inverse, 0).astype(np.float32)
  found = normals_from_depth(noisy, INTRINSICS)
  assert has_normal(found)[known].mean() > 0.8
  assert np.median(angles(found, normal)[has_normal(found)]) < 3
  assert_unit_and_facing(found)


@pytest.mark.parametrize(
  ("centre", "radius"), [((0, 0, -3), 1.0), ((0.5, 0.2, -2.5), 0.6)]
)
def test_spheres_within_a_degree(centre, radius):
  centre = np.array(centre, np.float64)
  depth, expected = sphere(centre, radius)
  found = normals_from_depth(depth, INTRINSICS)
  view = rays() / np.linalg.norm(rays(), axis=-1, keepdims=True)
  interior = -np.sum(expected * view, -1) > np.cos(np.radians(50))
  assert interior.sum() > 5000
  assert has_normal(found)[interior].all()
  assert angles(found, expected)[interior].max() < 1
  assert_unit_and_facing(found)


def test_surfaces_do_not_mix_at_a_depth_edge():
  left, right = np.array([0.6, 0, 0.8]), np.array([0, 0, 1.0])
  depth = np.where(np.arange(WIDTH) < 200, plane(left, 1.0), plane(right, 3.0))
  assert abs(depth[:, 199] - depth[:, 200]).min() > 0.5
  found = normals_from_depth(depth.astype(np.float32), INTRINSICS)
  known = has_normal(found)
  expected = np.where((np.arange(WIDTH) < 200)[:, None], left, right)
  assert known.mean() > 0.99
  assert angles(found, expected)[known].max() < 1


def test_holes_have_no_normal_and_do_no_harm():
  normal = np.array([0, 0.6, 0.8])
  depth = plane(normal)
  depth[np.random.default_rng(0).random(depth.shape) < 0.5] = 0
  found = normals_from_depth(depth, INTRINSICS)
  np.testing.assert_array_equal(has_normal(found), depth > 0)
  assert angles(found, normal)[depth > 0].max() < 0.1


def test_no_normal_where_too_little_is_of_one_surface():
  rng = np.random.default_rng(0)
  depth = rng.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
  assert not has_normal(normals_from_depth(depth, INTRINSICS)).any()


def test_no_normal_on_thin_lines():
  depth = np.full((HEIGHT, WIDTH), 4.0, np.float32)
  depth[:, 100:103] = 2.0
  found = normals_from_depth(depth, INTRINSICS)
  assert not has_normal(found)[:, 100:103].any()
  assert has_normal(found)[:, :100].all()


def test_no_normal_where_it_is_not_flat():
  # Two surfaces, checkered, too near to each other to be told apart.
  v, u = np.mgrid[:HEIGHT, :WIDTH]
  depth = np.where((u // 4 + v // 4) % 2, 2.0, 2.06).astype(np.float32)
  found = normals_from_depth(depth, INTRINSICS)
  assert not has_normal(found)[20:-20, 20:-20].any()


def test_axes():
  floor = normals_from_depth(plane(np.array([0, 1.0, 0])), INTRINSICS)
  assert floor[280, 200, 1] > 0.999
  right_wall = normals_from_depth(plane(np.array([-1.0, 0, 0]), 1.0), INTRINSICS)
  assert right_wall[140, 370, 0] < -0.999


@pytest.mark.parametrize("height", [48, 144, 480])
def test_other_resolutions(height):
  width = height * 4 // 3
  scale = height / HEIGHT
  intrinsics = tuple(scale * value for value in INTRINSICS)
  normal = np.array([0.3, 0.2, 0.93])
  normal /= np.linalg.norm(normal)
  depth = (-1.5 / (rays(height, width, intrinsics) @ normal)).astype(np.float32)
  found = normals_from_depth(depth, intrinsics)
  assert has_normal(found).all()
  assert angles(found, normal).max() < 0.2
  assert_unit_and_facing(found, intrinsics)


@pytest.mark.parametrize(
  ("height", "side"), [(480, 31), (288, 19), (240, 15), (96, 7), (10, 5)]
)
def test_window_is_in_proportion_and_odd(height, side):
  assert window_size(height) == side


def test_type_and_nothing_known():
  found = normals_from_depth(np.zeros((20, 30), np.float32), INTRINSICS)
  assert found.dtype == np.float32
  assert found.shape == (20, 30, 3)
  assert not found.any()


@pytest.mark.parametrize(
  ("depth", "intrinsics", "message"),
  [
    (np.zeros(3), INTRINSICS, r"depth must be a matrix, got shape \(3,\)"),
    (np.full((9, 9), np.nan), INTRINSICS, "finite and not negative"),
    (np.full((9, 9), -1.0), INTRINSICS, "finite and not negative"),
    (np.ones((9, 9)), (0, 1, 4, 4), "focal lengths must be positive, got 0 and 1"),
  ],
)
def test_errors(depth, intrinsics, message):
  with pytest.raises(ValueError, match=message):
    normals_from_depth(depth, intrinsics)
