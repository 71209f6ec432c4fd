"""Augmentation of scenes, and the batches that are made of them."""

import pickle

import numpy as np
import pytest

from igb_jax.data.augment import SCALES, augment, flip, resize
from igb_jax.data.loader import prefetch
from igb_jax.data.scene import Scene
from igb_jax.data.scene_batches import EvaluationBatches, TrainBatches


def make_scene(height: int = 24, width: int = 36, seed: int = 0) -> Scene:
  generator = np.random.default_rng(seed)
  normal = generator.normal(size=(height, width, 3))
  normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
  return Scene(
    image=generator.random((height, width, 3), np.float32),
    label=generator.integers(-1, 13, (height, width)).astype(np.int32),
    depth=generator.choice([0.0, 2.0, 5.0], (height, width)).astype(np.float32),
    normal=normal.astype(np.float32),
  )


def assert_scenes_equal(actual, expected):
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------- augmentation


def test_keeps_shapes_and_dtypes():
  scene = make_scene()
  for seed in range(20):
    result = augment(scene, np.random.default_rng(seed))
    for before, after in zip(scene, result, strict=True):
      assert (before.shape, before.dtype) == (after.shape, after.dtype)


def test_is_a_function_of_the_generator():
  scene = make_scene()
  results = [augment(scene, np.random.default_rng(seed)) for seed in (1, 1, 2)]
  assert_scenes_equal(results[0], results[1])
  assert (results[0].image != results[2].image).any()


def test_labels_stay_labels_and_depth_is_divided_by_the_scale():
  scene = make_scene()
  scales = set()
  for seed in range(60):
    result = augment(scene, np.random.default_rng(seed))
    assert set(np.unique(result.label)) <= set(np.unique(scene.label))
    depths = np.unique(result.depth)
    assert depths[0] == 0  # unknown stays unknown
    scale = 5.0 / depths[-1]
    assert min(abs(scale - allowed) for allowed in SCALES) < 1e-5
    np.testing.assert_allclose(depths, np.array([0, 2, 5]) / scale, 1e-6)
    scales.add(round(float(scale), 1))
  assert scales == set(SCALES)


def test_the_flip_negates_the_normals_x_and_mirrors_everything():
  scene = make_scene()
  mirrored = flip(scene)
  np.testing.assert_array_equal(mirrored.normal[..., 0], -scene.normal[:, ::-1, 0])
  np.testing.assert_array_equal(mirrored.normal[..., 1:], scene.normal[:, ::-1, 1:])
  np.testing.assert_array_equal(mirrored.label, scene.label[:, ::-1])
  assert_scenes_equal(flip(mirrored), scene)


def test_half_are_flipped_and_a_scale_of_one_leaves_the_rest_alone():
  scene = make_scene()
  kept = flipped = 0
  for seed in range(300):
    result = augment(scene, np.random.default_rng(seed))
    if result.depth.max() == 5.0:  # a scale of 1
      if (result.label == scene.label).all():
        assert_scenes_equal(result, scene)
        kept += 1
      else:
        assert_scenes_equal(result, flip(scene))
        flipped += 1
  assert kept > 10
  assert flipped > 10


def test_all_parts_are_cropped_alike():
  """Where every part holds the same picture, they still agree after augmentation."""
  rows, columns = np.mgrid[0:48, 0:64].astype(np.float32)
  ramp = columns / 63
  scene = Scene(
    image=np.stack([ramp] * 3, -1),
    label=(columns // 8).astype(np.int32),
    depth=np.ones_like(rows),
    normal=np.stack([np.zeros_like(ramp), ramp, np.sqrt(1 - ramp**2)], -1),
  )
  for seed in range(20):
    result = augment(scene, np.random.default_rng(seed))
    np.testing.assert_allclose(result.image[..., 0], result.normal[..., 1], atol=0.01)
    # a label is within two columns of the picture's
    assert (abs(result.image[..., 0] * 63 / 8 - result.label - 0.5) < 0.8).all()


def test_known_normals_stay_unit_vectors_and_unknown_ones_as_many():
  known = np.array([0.0, 0.6, 0.8], np.float32)
  scene = make_scene(48, 64)
  generator = np.random.default_rng(0)
  holes = generator.random((6, 8)).repeat(8, 0).repeat(8, 1) < 0.3
  scene = scene._replace(normal=np.where(holes[..., None], np.float32(0), known))
  shares = []
  for _ in range(50):
    normal = augment(scene, generator).normal
    length = np.linalg.norm(normal, axis=-1)
    np.testing.assert_allclose(normal[length > 0], np.broadcast_to(
      known, normal.shape)[length > 0], atol=1e-5)  # fmt: skip
    shares.append(np.mean(length > 0))
  assert abs(np.mean(shares) - np.mean(~holes)) < 0.03


# ------------------------------------------------------------------------- resize


def test_bilinear_keeps_corners_and_lines():
  columns = np.linspace(0, 1, 5, dtype=np.float32)
  image = np.broadcast_to(columns[None, :, None], (4, 5, 3)).copy()
  scene = Scene(image, np.zeros((4, 5), int), np.ones((4, 5), np.float32), image)
  larger = resize(scene, 7, 9).image
  np.testing.assert_allclose(larger[0, :, 0], np.linspace(0, 1, 9), atol=1e-6)
  assert larger.shape == (7, 9, 3)


def test_shrinking_to_a_fraction_takes_means_of_the_image():
  scene = make_scene(8, 12)
  smaller = resize(scene, 4, 6)
  means = scene.image.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3))
  np.testing.assert_allclose(smaller.image, means, 1e-6)
  assert set(np.unique(smaller.label)) <= set(np.unique(scene.label))
  # of the others what is in the middle: means of known and unknown are neither
  for part in ("label", "depth", "normal"):
    middle = getattr(scene, part)[1::2, 1::2]
    np.testing.assert_array_equal(getattr(smaller, part), middle)


def test_the_same_size_is_left_alone():
  scene = make_scene()
  assert resize(scene, 24, 36) is scene


# ------------------------------------------------------------------------ batches

SCENES = [make_scene(seed=seed) for seed in range(7)]
SHAPE = (24, 36)


def test_evaluation_takes_all_in_order_and_marks_what_is_empty():
  batches = EvaluationBatches(SCENES, np.arange(7), 3, SHAPE)
  assert len(batches) == 3
  seen = [batch.image[place] for batch in map(batches.__getitem__, range(3))
          for place in np.flatnonzero(batch.mask)]  # fmt: skip
  np.testing.assert_array_equal(seen, [scene.image for scene in SCENES])
  assert batches[2].mask.tolist() == [True, False, False]
  assert batches[2].image.shape == (3, *SHAPE, 3)


def train_batches(**options) -> TrainBatches:
  arguments = {"seed": 0, "num_epochs": 3} | options
  return TrainBatches(SCENES, np.arange(7), 2, SHAPE, **arguments)


def test_training_takes_every_scene_once_an_epoch_but_the_rest_of_a_batch():
  batches = train_batches(augmented=False)
  assert batches.steps_per_epoch == 3
  assert len(batches) == 9
  orders = []
  for epoch in range(3):
    images = np.concatenate([batches[3 * epoch + step].image for step in range(3)])
    order = [
      next(k for k, s in enumerate(SCENES) if (s.image == image).all())
      for image in images
    ]
    assert len(set(order)) == 6
    orders.append(order)
  assert orders[0] != orders[1] != orders[2]


def test_training_is_a_function_of_seed_epoch_and_place():
  first, again, other = (train_batches(seed=seed) for seed in (0, 0, 1))
  for index in (8, 0, 4):
    assert_scenes_equal(first[index], again[index])
  assert (first[0].image != other[0].image).any()
  assert_scenes_equal(pickle.loads(pickle.dumps(first))[5], first[5])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_loader_gives_the_same_in_threads_and_processes(workers):
  batches = train_batches()
  loaded = list(prefetch(batches, workers=workers, start=4))
  assert len(loaded) == 5
  for index, batch in enumerate(loaded):
    assert_scenes_equal(batch, batches[4 + index])


def test_a_batch_needs_as_many_scenes():
  with pytest.raises(ValueError, match=r"a batch of 9 needs .* got 7"):
    TrainBatches(SCENES, np.arange(7), 9, SHAPE, seed=0, num_epochs=1)
