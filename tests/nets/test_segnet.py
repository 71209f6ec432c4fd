"""SegNet and MTAN against the published networks, and their parts against loops."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.typing import DTypeLike

from igb_jax import scene_tasks
from igb_jax.data.scene_batches import SceneBatch
from igb_jax.nets import mtan, pooling, segnet
from tests.compiler_options import AS_USERS_DO
from tests.golden_parameters import golden_parameter

GOLDEN = Path(__file__).parents[1] / "golden"
NETS = {"segnet": segnet.SegNet, "mtan": mtan.MTAN}
FAST_AND_SLOW = pytest.mark.parametrize(
  "name", ["segnet", pytest.param("mtan", marks=pytest.mark.slow)]
)
NUM_PARAMETERS = {"segnet": 25_055_185, "mtan": 44_229_073}


def shapes_of(net, height=32, width=32):
  """Shapes of the variables, without computing them."""
  images = jnp.ones((2, height, width, 3))
  return jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))


def random_variables(net, seed=0):
  """Variables with a spread of statistics; cheaper than to compile `init`."""
  generator = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if len(leaf.shape) > 1:
      scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      value = scale * generator.normal(size=leaf.shape)
    elif name in ("scale", "var"):
      value = generator.uniform(0.5, 1.5, leaf.shape)
    else:
      value = 0.1 * generator.normal(size=leaf.shape)
    return jnp.asarray(value, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes_of(net))


def random_images(batch=2, height=32, width=64, seed=0):
  generator = np.random.default_rng(seed)
  return jnp.asarray(generator.random((batch, height, width, 3)), jnp.float32)


BLOCKS = {
  "encoder_block": "encoder",
  "conv_block_enc": "encoder_block",
  "decoder_block": "decoder",
  "conv_block_dec": "decoder_block",
  "encoder_block_att": "encoder_share",
  "decoder_block_att": "decoder_share",
  "encoder_att": "encoder_attention",
  "decoder_att": "decoder_attention",
}


def our_path(name: str, shape: list[int], is_mtan: bool) -> tuple[str, ...]:
  """Where parameter `name` of the published network is in ours."""
  _, module, *numbers, kind = name.split(".")
  # indices in a published Sequential: convolution, norm, (ReLU,) convolution, norm
  layer = ("convolution", "norm")[int(numbers[-1]) % 3]
  leaf = {"convolution": "kernel", "norm": "scale"}[layer] if kind == "weight" else kind
  if module.startswith("pred_task"):
    task = segnet.TASKS[int(module[-1]) - 1]
    leaf = "kernel" if kind == "weight" else kind
    return ("heads", task, ("convolution", "output")[int(numbers[-1])], leaf)
  block = BLOCKS[module]
  if block.endswith("_attention"):
    task, level, position = (int(number) for number in numbers)
    module = f"{block}_{segnet.TASKS[task]}_{level}"
    return ("shared", module, f"{layer}_{position // 3}", leaf)
  index = int(numbers[1]) if len(numbers) == 3 else 0
  in_trunk = ("trunk",) if is_mtan and not block.endswith("_share") else ()
  return ("shared", *in_trunk, f"{block}_{numbers[0]}", f"{layer}_{index}", leaf)


def golden_params(name: str) -> dict:
  """The published parameters in our layout: kernels are [h, w, in, out]."""
  flat = {}
  entries = json.loads((GOLDEN / f"{name}_params.json").read_text())
  for number, (published, shape) in enumerate(entries):
    value = golden_parameter(number, published, shape)
    if len(shape) == 4:
      value = value.transpose(2, 3, 1, 0)
      value = value[0, 0] if shape[2:] == [1, 1] else value
    flat[our_path(published, shape, name == "mtan")] = value
  assert len(flat) == len(entries)
  return traverse_util.unflatten_dict(flat)


def compute_golden_network(name: str, dtype: DTypeLike):
  """Losses, prediction and Gramian of the golden scenes, and the published ones."""
  net = NETS[name](dtype=dtype)
  published = dict(np.load(GOLDEN / f"{name}.npz"))
  for key in ("image", "normal", "semantic_logprob", "normal_pred"):
    published[key] = published[key].transpose(0, 2, 3, 1)
  for key in ("depth", "depth_pred"):
    published[key] = published[key][:, 0]

  def cast(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), tree)

  image, depth, normal = cast([published[key] for key in ("image", "depth", "normal")])
  label = published["label"].astype(int)
  scenes = SceneBatch(image, label, depth, normal, np.ones(len(image), bool))
  variables = shapes_of(net)
  params = cast(golden_params(name))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(
    lambda leaf: leaf.shape, variables["params"]
  )
  statistics = jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.full(leaf.shape, path[-1].key == "var", dtype),
    variables["batch_stats"],
  )

  # sums that are not vectorised are ten times less exact, and batch norm shows it
  @functools.partial(jax.jit, compiler_options=AS_USERS_DO)
  def compute(params):
    def fun(shared):
      prediction, _ = net.apply(
        {"params": {**params, "shared": shared}, "batch_stats": statistics},
        image,
        train=True,
        mutable="batch_stats",
      )
      return scene_tasks.losses(prediction, scenes), prediction

    losses, pullback, prediction = jax.vjp(fun, params["shared"], has_aux=True)
    rows = jax.lax.map(lambda row: pullback(row)[0], jnp.eye(3, dtype=dtype))
    flat = [leaf.reshape(3, -1) for leaf in jax.tree.leaves(rows)]
    precision = jax.lax.Precision.HIGHEST
    gramian = sum(jnp.matmul(leaf, leaf.T, precision=precision) for leaf in flat)
    return losses, prediction, gramian

  losses, prediction, gramian = jax.tree.map(np.asarray, compute(params))
  assert losses.dtype == gramian.dtype == dtype
  return losses, prediction, gramian, published


def gramian_error(gramian: np.ndarray, expected: np.ndarray) -> float:
  """The largest error of an inner product, in parts of the two norms."""
  norms = np.sqrt(np.diag(expected))
  return (np.abs(gramian - expected) / np.outer(norms, norms)).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_equals_the_published_network(name):
  """In float64, so that the rounding is the published float32 numbers' alone."""
  with jax.enable_x64(True):
    losses, prediction, gramian, published = compute_golden_network(name, np.float64)
  np.testing.assert_allclose(losses, published["losses"], 1e-6)
  close = {"rtol": 0, "atol": 5e-4}
  segmentation, depth = published["semantic_logprob"], published["depth_pred"]
  np.testing.assert_allclose(prediction.segmentation, segmentation, **close)
  np.testing.assert_allclose(prediction.depth, depth, **close)
  # where a vector is short, its direction takes the rounding of all layers
  np.testing.assert_allclose(prediction.normal, published["normal_pred"], 0, 2e-3)
  assert gramian_error(gramian, published["gramian"]) < 1.5e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_equals_the_published_network_in_float32(name):
  """Up to jumps: where rounding moves a maximum or a sign, few outputs jump.

  XLA before jax 0.10.2 sums on CPU one number after another; one output in fifty jumps
  then. Later none does.
  """
  losses, prediction, gramian, published = compute_golden_network(name, np.float32)
  np.testing.assert_allclose(losses, published["losses"], 1e-4)
  for field, key in (
    ("segmentation", "semantic_logprob"),
    ("depth", "depth_pred"),
    ("normal", "normal_pred"),
  ):
    is_close = np.isclose(getattr(prediction, field), published[key], 1e-3, 1e-3)
    assert is_close.mean() > 0.95, field
  # Gradients jump too: parameters moved by one part in 2^23 change this by 0.7e-3 to
  # 2e-3, and once in ten by 1.2e-2.
  assert gramian_error(gramian, published["gramian"]) < 3e-2


@pytest.mark.parametrize("name", NETS)
def test_variables(name):
  variables = shapes_of(NETS[name]())
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == NUM_PARAMETERS[name]
  assert set(variables["params"]) == {"shared", "heads"}
  assert set(variables["params"]["heads"]) == set(segnet.TASKS)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


@pytest.mark.parametrize("module", [segnet.Layers(40), segnet.Heads(13)])
def test_start(module):
  features = jnp.ones((1, 4, 4, 20))
  arguments = (features,) if isinstance(module, segnet.Layers) else (features,) * 3
  keywords = {"train": False} if isinstance(module, segnet.Layers) else {}
  init = jax.jit(lambda key: module.init(key, *arguments, **keywords)["params"])
  for path, leaf in traverse_util.flatten_dict(init(jax.random.key(0))).items():
    if path[-1] == "kernel":
      fan_in, fan_out = np.prod(leaf.shape[:-1]), leaf.shape[-1]
      fan_out *= np.prod(leaf.shape[:-2], dtype=int)
      expected = np.sqrt(2 / (fan_in + fan_out))
      assert float(leaf.std()) == pytest.approx(expected, rel=4 / np.sqrt(leaf.size))
    else:
      assert (leaf == (path[-1] == "scale")).all()


def test_width_scales_the_filters():
  assert segnet.filters(0.25) == (16, 32, 64, 128, 128)
  assert segnet.filters(0.01) == (4, 4, 4, 4, 4)
  with pytest.raises(ValueError, match="got 0"):
    segnet.filters(0)


def pool_by_loop(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Maxima, positions, and the gradient of their weighted sum, window by window."""
  batch, height, width, channels = features.shape
  pooled = np.empty((batch, height // 2, width // 2, channels), features.dtype)
  position = np.empty(pooled.shape, np.uint8)
  gradient = np.zeros_like(features)
  for b, h, w, c in np.ndindex(pooled.shape):
    window = features[b, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2, c]
    place = window.argmax()  # the first of equals, row by row
    position[b, h, w, c], pooled[b, h, w, c] = place, window.flat[place]
    gradient[b, 2 * h + place // 2, 2 * w + place % 2, c] = 1 + c
  return pooled, position, gradient


@pytest.mark.parametrize("number_of_values", [1, 3, 1000])
def test_pooling_equals_a_loop(number_of_values):
  generator = np.random.default_rng(0)
  features = generator.integers(number_of_values, size=(2, 6, 8, 3)) - 1.0
  features = features.astype(np.float32)
  pooled, position, gradient = pool_by_loop(features)

  ours = pooling.max_pool(jnp.asarray(features))
  np.testing.assert_array_equal(ours[0], pooled)
  np.testing.assert_array_equal(ours[1], position)
  weights = jnp.arange(1.0, 4.0)
  ours = jax.grad(lambda x: (weights * pooling.max_pool(x)[0]).sum())(features)
  np.testing.assert_array_equal(ours, gradient)

  values = jnp.broadcast_to(weights, pooled.shape)
  np.testing.assert_array_equal(pooling.unpool(values, position), gradient)
  ours = jax.grad(lambda v: (features * pooling.unpool(v, position)).sum())(values)
  np.testing.assert_array_equal(ours, pooled)


def test_pooling_keeps_nan():
  features = jnp.zeros((1, 2, 8, 1)).at[0, 0, 0].set(jnp.nan).at[0, 1, 3].set(jnp.nan)
  pooled, position = pooling.max_pool(features)
  np.testing.assert_array_equal(jnp.isnan(pooled).ravel(), [True, True, False, False])
  np.testing.assert_array_equal(position.ravel(), [0, 3, 0, 0])


def test_pooling_checks_shapes():
  with pytest.raises(ValueError, match="got 3 x 4"):
    pooling.max_pool(jnp.zeros((1, 3, 4, 1)))
  with pytest.raises(ValueError, match="positions"):
    pooling.unpool(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 2, 1, 1), jnp.uint8))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_upsampling_has_corners_on_corners(size):
  generator = np.random.default_rng(0)
  features = generator.normal(size=(1, size, 3, 2))
  places = np.linspace(0, size - 1, 2 * size), np.linspace(0, 2, 6)
  expected = features
  for axis, place in zip((1, 2), places, strict=True):
    expected = np.apply_along_axis(
      lambda row, place=place: np.interp(place, np.arange(len(row)), row),
      axis,
      expected,
    )
  np.testing.assert_allclose(mtan.upsample(jnp.asarray(features)), expected, 1e-5, 1e-6)
  with jax.enable_x64(True):
    exact = mtan.upsample(jnp.asarray(features, jnp.float64))
  np.testing.assert_allclose(exact, expected, 1e-13, 1e-14)


@FAST_AND_SLOW
def test_training_and_evaluation(name):
  net = NETS[name](width=0.05)
  variables = random_variables(net)
  traces = 0

  @jax.jit
  def train(variables, images):
    nonlocal traces
    traces += 1
    return net.apply(variables, images, train=True, mutable="batch_stats")

  @jax.jit
  def evaluate(variables, images):
    return net.apply(variables, images, train=False)

  images = random_images()
  trained, updates = train(variables, images)
  train(variables | updates, random_images(seed=1))
  assert traces == 1

  evaluated = evaluate(variables, images)
  assert evaluated.segmentation.shape == (2, 32, 64, 13)
  assert evaluated.depth.shape == (2, 32, 64)
  assert evaluated.normal.shape == (2, 32, 64, 3)
  np.testing.assert_allclose(jnp.linalg.norm(evaluated.normal, axis=-1), 1, 1e-5)
  np.testing.assert_allclose(jnp.exp(evaluated.segmentation).sum(-1), 1, 1e-5)
  # evaluation takes images one by one, training does not
  other = evaluate(variables, images.at[1].set(0))
  np.testing.assert_array_equal(other.depth[0], evaluated.depth[0])
  assert not np.allclose(
    train(variables, images.at[1].set(0))[0].depth[0], trained.depth[0]
  )
  assert not np.allclose(evaluated.depth, trained.depth)
  assert not np.allclose(evaluate(variables | updates, images).depth, evaluated.depth)


def test_running_statistics():
  net = segnet.Layers(4)
  features = random_images()
  variables = net.init(jax.random.key(0), features, train=False)
  _, updates = net.apply(variables, features, train=True, mutable="batch_stats")
  params = variables["params"]["convolution_0"]
  convolved = segnet.convolve(features, params["kernel"]) + params["bias"]
  statistics = updates["batch_stats"]["norm_0"]
  mean, var = convolved.mean((0, 1, 2)), convolved.var((0, 1, 2))
  np.testing.assert_allclose(statistics["mean"], 0.1 * mean, 1e-4, 1e-6)
  np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * var, 1e-4)


@FAST_AND_SLOW
def test_bfloat16_is_close_and_only_inside(name):
  nets = [NETS[name](width=0.05, dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)]
  variables, images = random_variables(nets[0]), random_images()
  assert shapes_of(nets[1]) == shapes_of(nets[0])
  trained = jax.eval_shape(
    lambda: nets[1].apply(variables, images, train=True, mutable="batch_stats")
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(trained)} == {np.dtype("float32")}
  # with running statistics: those of the four deepest pixels blow roundings up; some
  # maxima move to another place in their window even so
  exact, rounded = (
    jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))(variables, images)
    for net in nets
  )
  for expected, got in zip(exact, rounded, strict=True):
    error = jnp.sqrt(jnp.mean((got - expected) ** 2))
    assert 0 < error < 0.3 * jnp.std(expected)


@pytest.mark.parametrize(
  ("shape", "message"),
  [
    ((1, 32, 48, 3), "multiples of 32, got 32 x 48"),
    ((1, 40, 64, 3), "multiples of 32, got 40 x 64"),
    ((1, 32, 64, 1), r"got \(1, 32, 64, 1\)"),
    ((32, 64, 3), r"got \(32, 64, 3\)"),
  ],
)
@pytest.mark.parametrize("name", NETS)
def test_bad_images_are_refused(name, shape, message):
  net = NETS[name](width=0.05)
  images = jnp.ones(shape)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))


@FAST_AND_SLOW
def test_lowers_for_every_platform(name):
  net = NETS[name](width=0.05)
  variables = random_variables(net)

  @jax.jit
  def gradient(variables, images):
    def loss(params):
      prediction, updates = net.apply(
        variables | {"params": params}, images, train=True, mutable="batch_stats"
      )
      return sum(x.mean() for x in prediction), updates

    return jax.grad(loss, has_aux=True)(variables["params"])

  exported = jax.export.export(gradient, platforms=["cpu", "cuda", "tpu"])
  module = exported(variables, random_images()).mlir_module()
  assert all(word not in module for word in ("f64", "stablehlo.scatter", "gather"))
