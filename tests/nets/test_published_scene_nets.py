"""SegNet and MTAN against the published networks, on the published parameters."""

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
from igb_jax.nets import segnet
from tests.compiler_options import AS_USERS_DO
from tests.golden_parameters import golden_parameter
from tests.nets.scene_nets import NETS, shapes_of

GOLDEN = Path(__file__).parents[1] / "golden"

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
