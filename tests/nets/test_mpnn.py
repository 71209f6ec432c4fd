"""The QM9 network against the published one, and against its own plain form."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from igb_jax.data import graphs
from igb_jax.nets import mpnn
from igb_jax.task_grads import value_and_task_grads

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "mpnn.npz")
NUM_TASKS = 11


def init(net: mpnn.MPNN, batch) -> Any:
  """Parameters; all is compiled, as op by op it takes ten times as long."""
  return jax.jit(net.init)(jax.random.key(0), batch)


def golden_graphs() -> list[jraph.GraphsTuple]:
  """The eight molecules as single graphs, in the golden file's order."""
  graph_of_node = GOLDEN["graph"]
  senders, receivers = GOLDEN["edge_index"]
  singles = []
  for index in range(graph_of_node.max() + 1):
    nodes = np.flatnonzero(graph_of_node == index)
    edges = np.flatnonzero(graph_of_node[senders] == index)
    singles.append(
      jraph.GraphsTuple(
        nodes=GOLDEN["x"][nodes],
        edges=GOLDEN["edge_attr"][edges],
        senders=senders[edges] - nodes[0],
        receivers=receivers[edges] - nodes[0],
        n_node=np.array([len(nodes)]),
        n_edge=np.array([len(edges)]),
        globals=None,
      )
    )
  return singles


def golden_params() -> dict:
  """The published parameters in our layout: kernels are [in, out]."""
  p = {name[6:]: GOLDEN[name] for name in GOLDEN if name.startswith("param/")}

  def dense(prefix, suffix=""):
    return {
      "kernel": p[f"{prefix}weight{suffix}"].T,
      "bias": p[f"{prefix}bias{suffix}"],
    }

  heads = [p[f"head_{k}.weight"] for k in range(NUM_TASKS)]
  dim, edge_dim = 64, 128
  return {
    "heads": {
      "kernel": np.concatenate(heads).T,
      "bias": np.concatenate([p[f"head_{k}.bias"] for k in range(NUM_TASKS)]),
    },
    "shared": {
      "Dense_0": dense("lin0."),
      "Dense_1": dense("conv.nn.0."),
      "_EdgeConvolution_0": {
        # row in * dim + out of the published matrix makes entry [in, out]
        "kernel": p["conv.nn.2.weight"].reshape(dim, dim, edge_dim).transpose(0, 2, 1),
        "kernel_bias": p["conv.nn.2.bias"].reshape(dim, dim),
        "Dense_0": {"kernel": p["conv.lin.weight"].T},
        "bias": p["conv.bias"],
      },
      "_GRUCell_0": {
        "Dense_0": dense("gru.", "_ih_l0") | {"bias": p["gru.bias_ih_l0"]},
        "Dense_1": dense("gru.", "_hh_l0") | {"bias": p["gru.bias_hh_l0"]},
      },
      "set2set": {
        "Dense_0": {
          "kernel": p["set2set.lstm.weight_ih_l0"].T,
          "bias": p["set2set.lstm.bias_ih_l0"],
        },
        "Dense_1": {
          "kernel": p["set2set.lstm.weight_hh_l0"].T,
          "bias": p["set2set.lstm.bias_hh_l0"],
        },
      },
      "Dense_2": dense("lin1."),
    },
  }


def golden_batch(groups: graphs.SizeGroups) -> tuple[tuple, np.ndarray]:
  """The molecules sorted by size and padded, and their order."""
  singles = golden_graphs()
  order = np.argsort([len(graph.nodes) for graph in singles], kind="stable")
  return graphs.pad([singles[i] for i in order], groups), order


GROUPS = [
  graphs.SizeGroups((8,), (17,)),
  graphs.SizeGroups((8,), (29,)),
  graphs.SizeGroups((3, 3, 2), (14, 17, 18)),
]


@pytest.mark.parametrize(
  "groups",
  [*(pytest.param(each, marks=pytest.mark.slow) for each in GROUPS[:2]), GROUPS[2]],
)
def test_equals_the_published_network(groups):
  net = mpnn.MPNN(num_tasks=NUM_TASKS)
  params = golden_params()
  batch, order = golden_batch(groups)

  initial = jax.eval_shape(net.init, jax.random.key(0), batch)["params"]
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, initial)

  def losses_of(params):
    features = net.apply({"params": params}, batch, method="features")
    predictions = net.apply({"params": params}, batch)
    losses = jnp.mean((predictions - GOLDEN["y"][order]) ** 2, axis=0)
    return losses, (losses, predictions, features)

  jacobian, found = jax.jit(jax.jacrev(losses_of, has_aux=True))(params)
  losses, predictions, features = found
  np.testing.assert_allclose(features, GOLDEN["features"][order], 1e-4, 1e-6)
  np.testing.assert_allclose(predictions, GOLDEN["pred"][order], 1e-4, 1e-6)
  np.testing.assert_allclose(losses, GOLDEN["losses"], 1e-4)
  flat = np.concatenate(
    [leaf.reshape(NUM_TASKS, -1) for leaf in jax.tree.leaves(jacobian["shared"])],
    axis=1,
  )
  gramian = flat @ flat.T
  scale = np.sqrt(np.outer(np.diag(gramian), np.diag(gramian)))
  np.testing.assert_array_less(np.abs(gramian - GOLDEN["gramian"]) / scale, 1e-4)


def plain_messages(params: dict, graph: jraph.GraphsTuple, x: jax.Array) -> jax.Array:
  """One round of messages with a matrix for every edge, as jraph writes it."""
  convolution = params["_EdgeConvolution_0"]
  hidden = jax.nn.relu(
    graph.edges @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
  )
  matrices = jnp.einsum("ek,ikj->eij", hidden, convolution["kernel"])
  matrices += convolution["kernel_bias"]
  messages = jnp.einsum("ei,eij->ej", x[graph.senders], matrices)
  mean = jraph.segment_mean(messages, graph.receivers, len(x))
  return mean + x @ convolution["Dense_0"]["kernel"] + convolution["bias"]


def random_graph(generator: np.random.Generator, num_nodes: int) -> jraph.GraphsTuple:
  """A graph with a random half of all possible edges, so not a complete one."""
  senders, receivers = np.nonzero(
    (generator.random((num_nodes, num_nodes)) < 0.5) & ~np.eye(num_nodes, dtype=bool)
  )
  return jraph.GraphsTuple(
    nodes=generator.normal(size=(num_nodes, 11)),
    edges=generator.normal(size=(len(senders), 5)),
    senders=senders,
    receivers=receivers,
    n_node=np.array([num_nodes]),
    n_edge=np.array([len(senders)]),
    globals=None,
  )


@pytest.mark.slow
def test_reassociated_messages_equal_one_matrix_an_edge():
  generator = np.random.default_rng(0)
  singles = [random_graph(generator, size) for size in (1, 2, 5, 9)]
  groups = graphs.SizeGroups((2, 2), (3, 9))
  batch = graphs.pad(singles, groups)
  net = mpnn.MPNN(num_tasks=2)
  params = init(net, batch)["params"]["shared"]

  dense = [mpnn._to_dense(group) for group in batch]
  hidden = [
    (
      jax.nn.relu(g.edges @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"])
      * g.adjacency[..., None]
    ).reshape(*g.mask.shape, -1)
    for g in dense
  ]
  nodes = [jnp.asarray(generator.normal(size=(*g.mask.shape, 64))) for g in dense]
  messages = mpnn._EdgeConvolution(64, 128).apply(
    {"params": params["_EdgeConvolution_0"]}, nodes, hidden, dense
  )
  for index, single in enumerate(singles):
    group, row = divmod(index, 2)
    size = len(single.nodes)
    expected = plain_messages(params, single, nodes[group][row, :size])
    np.testing.assert_allclose(messages[group][row, :size], expected, 1e-4, 1e-5)


def test_padding_and_empty_places_change_nothing():
  generator = np.random.default_rng(0)
  singles = [random_graph(generator, size) for size in (2, 5, 9)]
  tight = graphs.pad(singles, graphs.SizeGroups((1, 2), (2, 9)))
  roomy = graphs.pad(singles, graphs.SizeGroups((4, 3), (20, 29)))
  net = mpnn.MPNN(num_tasks=2)
  variables = init(net, tight)
  apply = jax.jit(net.apply)
  predictions = apply(variables, roomy)
  np.testing.assert_allclose(predictions[4:], apply(variables, tight), 1e-5, 1e-6)
  assert np.isfinite(predictions).all()
  gradients = jax.jit(jax.grad(lambda v: (net.apply(v, roomy)[4:] ** 2).sum()))(
    variables
  )
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_order_of_nodes_does_not_matter():
  generator = np.random.default_rng(0)
  graph = random_graph(generator, 7)
  order = generator.permutation(7)
  place = np.argsort(order)
  permuted = graph._replace(
    nodes=graph.nodes[order],
    senders=place[graph.senders],
    receivers=place[graph.receivers],
  )
  groups = graphs.SizeGroups((1,), (7,))
  net = mpnn.MPNN(num_tasks=2)
  variables = init(net, graphs.pad([graph], groups))
  apply = jax.jit(net.apply)
  outputs = [apply(variables, graphs.pad([g], groups)) for g in (graph, permuted)]
  np.testing.assert_allclose(outputs[0], outputs[1], 1e-4, 1e-6)


def test_number_of_parameters():
  net = mpnn.MPNN(num_tasks=NUM_TASKS)
  batch, _ = golden_batch(GROUPS[0])
  params = jax.eval_shape(net.init, jax.random.key(0), batch)["params"]
  published = [GOLDEN[name].size for name in GOLDEN if name.startswith("param/")]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(published)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers_for_every_platform(platform):
  net = mpnn.MPNN(num_tasks=NUM_TASKS)
  batch, _ = golden_batch(GROUPS[2])
  variables = init(net, batch)

  @jax.jit
  def gradient(variables, batch):
    return jax.grad(lambda v: (net.apply(v, batch) ** 2).mean())(variables)

  exported = jax.export.export(gradient, platforms=[platform])(variables, batch)
  assert "f64" not in exported.mlir_module()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_task_gradients_equal_jacrev(batch_size):
  net = mpnn.MPNN(num_tasks=NUM_TASKS, dim=8)
  batch, _ = golden_batch(GROUPS[0])
  params = init(net, batch)["params"]

  def losses_of(params):
    predictions = net.apply({"params": params}, batch)
    return jnp.mean(predictions**2, axis=0), predictions

  task_grads_of = value_and_task_grads(losses_of, has_aux=True, batch_size=batch_size)
  (losses, aux), grads = jax.jit(task_grads_of)(params)

  @jax.jit
  def reference(params):
    return jax.jacrev(losses_of, has_aux=True)(params), losses_of(params)[0]

  (expected, predictions), expected_losses = reference(params)
  np.testing.assert_allclose(losses, expected_losses, 1e-5, 1e-6)
  np.testing.assert_allclose(aux, predictions, 1e-5, 1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), grads, expected
  )
