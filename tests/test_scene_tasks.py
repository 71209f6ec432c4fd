"""Losses and metrics of scenes, against NumPy and cases made by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import scene_tasks
from igb_jax.scene_tasks import METRICS, SceneMetrics, Sum


class Scenes(NamedTuple):
  label: np.ndarray
  depth: np.ndarray
  normal: np.ndarray


class Prediction(NamedTuple):
  segmentation: np.ndarray
  depth: np.ndarray
  normal: np.ndarray


def unit(vectors):
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def random_case(seed: int, batch: int = 3, height: int = 8, width: int = 12):
  generator = np.random.default_rng(seed)
  shape = (batch, height, width)
  normal = unit(generator.normal(size=(*shape, 3)))
  normal[generator.random(shape) < 0.2] = 0
  depth = generator.uniform(0.5, 8, size=shape)
  depth[generator.random(shape) < 0.3] = 0
  scenes = Scenes(
    label=generator.integers(-1, 13, size=shape).astype(np.int32),
    depth=depth.astype(np.float32),
    normal=normal.astype(np.float32),
  )
  logits = generator.normal(size=(*shape, 13))
  prediction = Prediction(
    segmentation=np.asarray(jax.nn.log_softmax(logits), np.float32),
    depth=(scenes.depth + generator.normal(size=shape)).astype(np.float32),
    normal=unit(scenes.normal + generator.normal(size=(*shape, 3))).astype(np.float32),
  )
  return prediction, scenes


def perfect(scenes: Scenes) -> Prediction:
  one_hot = np.eye(13)[np.maximum(scenes.label, 0)]
  normal = np.where(
    (scenes.normal != 0).any(-1, keepdims=True), scenes.normal, [0, 0, 1]
  )
  return Prediction(
    segmentation=np.log(np.maximum(one_hot, 1e-30)).astype(np.float32),
    depth=scenes.depth,
    normal=normal.astype(np.float32),
  )


def metrics_of(cases, masks=None) -> dict[str, float]:
  plus = jax.jit(SceneMetrics.plus)
  total = SceneMetrics.zeros()
  for index, (prediction, scenes) in enumerate(cases):
    mask = np.ones(len(scenes.label), bool) if masks is None else masks[index]
    total = plus(total, prediction, scenes, mask)
  return total.compute()


def metrics_by_numpy(cases) -> dict[str, float]:
  parts = [np.concatenate([np.asarray(x[i]) for x, _ in cases]) for i in range(3)]
  true = [np.concatenate([x[i] for _, x in cases]) for i in range(3)]
  label, depth, normal = true
  predicted = parts[0].argmax(-1)
  valid = label >= 0
  ious = []
  for k in range(13):
    union = (valid & ((label == k) | (predicted == k))).sum()
    if union:
      ious.append((valid & (label == k) & (predicted == k)).sum() / union)
  error = np.abs(parts[1] - depth)[depth > 0].astype(np.float64)
  known = (normal != 0).any(-1)
  cosine = (parts[2] * normal).sum(-1)[known].astype(np.float64)
  angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
  values = (
    100 * np.mean(ious),
    100 * (predicted == label)[valid].mean(),
    error.mean(),
    (error / depth[depth > 0]).mean(),
    angle.mean(),
    np.sort(angle)[(len(angle) - 1) // 2],
    *(100 * (angle < threshold).mean() for threshold in (11.25, 22.5, 30)),
  )
  return dict(zip(METRICS, values, strict=True))


# ------------------------------------------------------------------------- losses


def test_losses_equal_numpy():
  prediction, scenes = random_case(0)
  valid = scenes.label >= 0
  chosen = np.take_along_axis(
    prediction.segmentation, np.maximum(scenes.label, 0)[..., None], -1
  )[..., 0]
  known = (scenes.normal != 0).any(-1)
  cosine = (prediction.normal * scenes.normal).sum(-1)
  expected = [
    -chosen[valid].mean(),
    np.abs(prediction.depth - scenes.depth)[scenes.depth > 0].mean(),
    1 - cosine[known].mean(),
  ]
  actual = jax.jit(scene_tasks.losses)(prediction, scenes)
  np.testing.assert_allclose(actual, expected, 1e-5)


def test_a_perfect_prediction_has_no_loss():
  _, scenes = random_case(0)
  np.testing.assert_allclose(
    scene_tasks.losses(perfect(scenes), scenes), np.zeros(3), atol=1e-6
  )


def test_what_is_unknown_has_no_loss_and_no_gradient():
  prediction, scenes = random_case(0)
  unknown = Scenes(
    np.full_like(scenes.label, -1),
    np.zeros_like(scenes.depth),
    np.zeros_like(scenes.normal),
  )
  losses, pull_back = jax.vjp(lambda p: scene_tasks.losses(p, unknown), prediction)
  assert losses.tolist() == [0, 0, 0]
  for leaf in jax.tree.leaves(pull_back(jnp.ones(3))):
    assert not leaf.any()


def test_an_unknown_prediction_there_changes_nothing():
  prediction, scenes = random_case(0)
  hidden = Prediction(
    np.where((scenes.label < 0)[..., None], np.nan, prediction.segmentation),
    np.where(scenes.depth == 0, np.nan, prediction.depth),
    np.where((scenes.normal == 0).all(-1)[..., None], np.nan, prediction.normal),
  )
  np.testing.assert_array_equal(
    scene_tasks.losses(hidden, scenes), scene_tasks.losses(prediction, scenes)
  )


# ------------------------------------------------------------------------ metrics


def test_metrics_equal_numpy_over_all_pixels():
  cases = [random_case(seed) for seed in range(4)]
  actual, expected = metrics_of(cases), metrics_by_numpy(cases)
  assert list(actual) == list(METRICS)
  for name in METRICS:
    tolerance = {"abs": 0.011} if name == "normal_median" else {"rel": 1e-5}
    assert actual[name] == pytest.approx(expected[name], **tolerance), name


def test_batches_count_by_their_pixels_not_alike():
  first, second = random_case(0), random_case(1)
  few = second[1]._replace(depth=np.zeros_like(second[1].depth))
  few.depth[0, 0, 0] = 1.0
  cases = [first, (second[0], few)]
  actual, expected = metrics_of(cases), metrics_by_numpy(cases)
  assert actual["depth_abs_err"] == pytest.approx(expected["depth_abs_err"], rel=1e-5)
  averages = [metrics_by_numpy([case])["depth_abs_err"] for case in cases]
  assert abs(np.mean(averages) - expected["depth_abs_err"]) > 0.01


def test_scenes_that_are_not_there_do_not_count():
  cases = [random_case(0), random_case(1)]
  masks = [np.array([True, True, True]), np.array([True, False, False])]
  prediction, scenes = cases[1]
  alone = tuple(
    type(part)(*(leaf[:1] for leaf in part)) for part in (prediction, scenes)
  )
  expected = metrics_by_numpy([cases[0], alone])
  for name, value in metrics_of(cases, masks).items():
    tolerance = {"abs": 0.011} if name == "normal_median" else {"rel": 1e-5}
    assert value == pytest.approx(expected[name], **tolerance), name


def test_a_perfect_prediction_is_perfect():
  _, scenes = random_case(0)
  actual = metrics_of([(perfect(scenes), scenes)])
  # the cosine of float32 unit vectors is 1 within 1e-7, so the angle 0 within 0.03
  expected = (100, 100, 0, 0, 0, 0, 100, 100, 100)
  for name, value in zip(METRICS, expected, strict=True):
    assert actual[name] == pytest.approx(value, abs=0.05), name


def test_a_wholly_wrong_prediction_is_wholly_wrong():
  _, scenes = random_case(0)
  right = perfect(scenes)
  wrong = right._replace(
    segmentation=np.roll(right.segmentation, 1, axis=-1), normal=-right.normal
  )
  actual = metrics_of([(wrong, scenes)])
  assert actual["miou"] == actual["pixel_accuracy"] == actual["normal_30"] == 0
  assert actual["normal_mean"] == pytest.approx(180, abs=0.05)
  assert actual["normal_median"] == pytest.approx(180, abs=0.05)


@pytest.mark.parametrize(
  ("part", "names"),
  [
    ("label", METRICS[:2]),
    ("depth", METRICS[2:4]),
    ("normal", METRICS[4:]),
  ],
)
def test_a_task_without_targets_has_no_metric(part, names):
  prediction, scenes = random_case(0)
  nothing = (
    np.full_like(scenes.label, -1) if part == "label" else 0 * getattr(scenes, part)
  )
  actual = metrics_of([(prediction, scenes._replace(**{part: nothing}))])
  for name in METRICS:
    assert np.isnan(actual[name]) == (name in names)


def test_a_prediction_that_is_no_number_has_no_metric():
  prediction, scenes = random_case(0)
  for part, names in (
    ("segmentation", METRICS[:2]), ("depth", METRICS[2:4]), ("normal", METRICS[4:]),
  ):  # fmt: skip
    values = np.array(getattr(prediction, part))
    values[0, :3] = np.nan
    metrics = metrics_of([(prediction._replace(**{part: values}), scenes)])
    for name in METRICS:
      assert np.isnan(metrics[name]) == (name in names), name


def test_classes_that_never_occur_do_not_lower_the_miou():
  label = np.zeros((1, 2, 2), np.int32)
  label[0, 0] = 3
  scenes = Scenes(
    label, np.ones((1, 2, 2), np.float32), np.ones((1, 2, 2, 3), np.float32)
  )
  half = perfect(scenes)
  half.segmentation[0, 0, 0] = np.roll(half.segmentation[0, 0, 0], -3)  # 3 becomes 0
  # class 3: 1 of 2; class 0: 2 of 3
  assert metrics_of([(half, scenes)])["miou"] == pytest.approx(
    100 * (1 / 2 + 2 / 3) / 2
  )


def test_normals_need_not_have_length_one_to_be_compared():
  prediction, scenes = random_case(0)
  longer = scenes._replace(normal=3 * scenes.normal)
  a, b = metrics_of([(prediction, scenes)]), metrics_of([(prediction, longer)])
  assert a["normal_mean"] == pytest.approx(b["normal_mean"], rel=1e-5)


def test_sums_of_many_numbers_lose_nothing():
  values = np.random.default_rng(0).uniform(0, 1, 100_000).astype(np.float32)

  @jax.jit
  def add_up(values):
    return jax.lax.scan(lambda total, x: (total.plus(x), None), Sum.zero(), values)[0]

  total = add_up(values)
  exact = values.astype(np.float64).sum()
  assert float(total.total) + float(total.lost) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for_every_platform(platform):
  prediction, scenes = jax.tree.map(jnp.asarray, random_case(0))

  @jax.jit
  def both(total, prediction, scenes):
    mask = jnp.ones(3, bool)
    return scene_tasks.losses(prediction, scenes), total.plus(prediction, scenes, mask)

  exported = jax.export.export(both, platforms=[platform])(
    SceneMetrics.zeros(), prediction, scenes
  )
  assert "f64" not in exported.mlir_module()
