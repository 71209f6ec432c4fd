"""SegNet and MTAN: their variables, training, dtypes, platforms and bad images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from igb_jax.nets import segnet
from tests.nets.scene_nets import NETS, shapes_of

FAST_AND_SLOW = pytest.mark.parametrize(
  "name", ["segnet", pytest.param("mtan", marks=pytest.mark.slow)]
)
NUM_PARAMETERS = {"segnet": 25_055_185, "mtan": 44_229_073}


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
