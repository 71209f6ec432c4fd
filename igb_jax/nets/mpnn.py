"""Message-passing network for molecules (MPNN), re-associated for complete graphs.

Three rounds with the same parameters, for node j -> i with edge features e_ij:

    h_ij = ReLU(e_ij A + a),    W(h) = sum_k h[k] W_k + W_bias
    m_i  = mean_j x_j W(h_ij) + x_i W_root + b
    x_i <- GRU(ReLU(m_i), x_i)

then Set2Set, a linear layer and one linear head per task. W(h_ij) is a dim x dim
matrix for every edge; it is never built, because

    sum_j x_j W(h_ij) = sum_{j,k} h_ij[k] (x_j W_k) + (sum_j x_j) W_bias

is two plain matrix products: x [n, dim] by the kernels [dim, edge_dim dim], then
h [n, n edge_dim] by the result [n edge_dim, dim].

Reference: Gilmer et al., "Neural Message Passing for Quantum Chemistry", ICML 2017;
Vinyals et al., "Order Matters: Sequence to Sequence for Sets", ICLR 2016 (Set2Set).
Widths and order of operations are those of the network that Nash-MTL and IGB
train on QM9. Parameters start as there: uniform in +-1/sqrt(fan_in), b at zero.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import jraph

from igb_jax.layers import linear, uniform


class _Dense(NamedTuple):
  """Graphs of one capacity n, as arrays that matrix products can use.

  Attributes:
    nodes: f32[G, n, F].
    edges: f32[G, n, n, E], edge j -> i at [i, j].
    adjacency: f32[G, n, n], 1 where there is an edge.
    mask: bool[G, n], which nodes are there.
  """

  nodes: jax.Array
  edges: jax.Array
  adjacency: jax.Array
  mask: jax.Array


def _to_dense(graphs: jraph.GraphsTuple) -> _Dense:
  fields = graphs.nodes, graphs.edges, graphs.senders, graphs.receivers
  nodes, edges, senders, receivers = cast(tuple[jax.Array, ...], fields)
  n_node, n_edge = cast(tuple[jax.Array, ...], (graphs.n_node, graphs.n_edge))
  num_graphs, capacity, _ = nodes.shape
  is_edge = jnp.arange(senders.shape[1]) < n_edge[:, :1]
  # padding edges go out of bounds, where they are dropped
  receivers = jnp.where(is_edge, receivers, capacity)
  place = jnp.arange(num_graphs)[:, None], receivers, senders
  square = (num_graphs, capacity, capacity)
  return _Dense(
    nodes=nodes,
    edges=jnp.zeros((*square, edges.shape[-1])).at[place].set(edges, mode="drop"),
    adjacency=jnp.zeros(square).at[place].set(1.0, mode="drop"),
    mask=jnp.arange(capacity) < n_node[:, :1],
  )


class _GRUCell(nn.Module):
  """Gated recurrent unit with both bias vectors of PyTorch's, gates r z n."""

  dim: int

  @nn.compact
  def __call__(self, inputs: jax.Array, state: jax.Array) -> jax.Array:
    from_input = linear(3 * self.dim, self.dim)(inputs)
    from_state = linear(3 * self.dim, self.dim)(state)
    reset_i, update_i, new_i = jnp.split(from_input, 3, axis=-1)
    reset_s, update_s, new_s = jnp.split(from_state, 3, axis=-1)
    reset = nn.sigmoid(reset_i + reset_s)
    update = nn.sigmoid(update_i + update_s)
    new = nn.tanh(new_i + reset * new_s)
    return (1 - update) * new + update * state


class _LSTMCell(nn.Module):
  """Long short-term memory with both bias vectors of PyTorch's, gates i f g o."""

  dim: int

  @nn.compact
  def __call__(
    self, inputs: jax.Array, state: jax.Array, memory: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    # PyTorch draws all four from +-1/sqrt(dim), though the inputs are 2 dim wide
    gates = linear(4 * self.dim, self.dim)(inputs)
    gates += linear(4 * self.dim, self.dim)(state)
    write, forget, value, read = jnp.split(gates, 4, axis=-1)
    memory = nn.sigmoid(forget) * memory + nn.sigmoid(write) * nn.tanh(value)
    return nn.sigmoid(read) * nn.tanh(memory), memory


class _EdgeConvolution(nn.Module):
  """m_i = mean_j x_j W(h_ij) + x_i W_root + b, for graphs of one or more capacities."""

  dim: int
  edge_dim: int

  @nn.compact
  def __call__(
    self, nodes: list[jax.Array], hidden: list[jax.Array], dense: list[_Dense]
  ) -> list[jax.Array]:
    kernel = self.param(
      "kernel", uniform(self.edge_dim), (self.dim, self.edge_dim, self.dim)
    )
    kernel_bias = self.param(
      "kernel_bias", uniform(self.edge_dim), (self.dim, self.dim)
    )
    root = linear(self.dim, self.dim, use_bias=False)
    bias = self.param("bias", nn.initializers.zeros, (self.dim,))

    messages = []
    for x, h, graphs in zip(nodes, hidden, dense, strict=True):
      num_graphs, capacity, _ = x.shape
      by_kernel = x.reshape(-1, self.dim) @ kernel.reshape(self.dim, -1)
      total = h @ by_kernel.reshape(num_graphs, capacity * self.edge_dim, self.dim)
      total += (graphs.adjacency @ x) @ kernel_bias
      degree = graphs.adjacency.sum(axis=-1, keepdims=True)
      messages.append(total / jnp.maximum(degree, 1) + root(x) + bias)
    return messages


class _Encoder(nn.Module):
  """From graphs to features f32[B, dim]: all that the tasks share."""

  dim: int
  edge_dim: int
  num_rounds: int
  readout_steps: int

  @nn.compact
  def __call__(self, graphs: Sequence[jraph.GraphsTuple]) -> jax.Array:
    dense = [_to_dense(group) for group in graphs]

    embed = linear(self.dim, dense[0].nodes.shape[-1])
    embed_edge = linear(self.edge_dim, dense[0].edges.shape[-1])
    nodes = [nn.relu(embed(group.nodes)) for group in dense]
    hidden = []
    for group in dense:
      num_graphs, capacity = group.mask.shape
      # products of matrices, not of stacks of them: XLA on CPU transposes the whole
      # cotangent of a stack, which took half of the step
      h = nn.relu(embed_edge(group.edges.reshape(-1, group.edges.shape[-1])))
      h = h * group.adjacency.reshape(-1, 1)
      hidden.append(h.reshape(num_graphs, capacity, capacity * self.edge_dim))

    convolve = _EdgeConvolution(self.dim, self.edge_dim)
    gru = _GRUCell(self.dim)
    for _ in range(self.num_rounds):
      messages = convolve(nodes, hidden, dense)
      nodes = [gru(nn.relu(m), x) for m, x in zip(messages, nodes, strict=True)]

    read = self._set2set(nodes, [group.mask for group in dense])
    return nn.relu(linear(self.dim, 2 * self.dim)(read))

  def _set2set(self, nodes: list[jax.Array], masks: list[jax.Array]) -> jax.Array:
    """Reads each graph by repeated attention: f32[B, 2 dim], query and read."""
    lstm = _LSTMCell(self.dim, name="set2set")
    counts = [len(x) for x in nodes]
    ends = [sum(counts[: i + 1]) for i in range(len(counts))]
    query = memory = jnp.zeros((ends[-1], self.dim))
    read = jnp.zeros((ends[-1], 2 * self.dim))
    for _ in range(self.readout_steps):
      query, memory = lstm(read, query, memory)
      values = []
      for q, x, mask in zip(jnp.split(query, ends[:-1]), nodes, masks, strict=True):
        # finite, so that a graph without nodes gives numbers and not NaN
        scores = jnp.where(mask, jnp.einsum("bd,bnd->bn", q, x), -1e30)
        values.append(jnp.einsum("bn,bnd->bd", nn.softmax(scores), x))
      read = jnp.concatenate([query, jnp.concatenate(values)], axis=-1)
    return read


class MPNN(nn.Module):
  """The QM9 network: graphs to one scalar per task.

  The parameters' top level is `shared` and `heads`; `heads` holds one linear layer
  of K columns, column k being the head of task k.

  Attributes:
    num_tasks: K, the number of tasks.
    dim: width of the node state.
    edge_dim: width of the hidden layer of the edge network.
    num_rounds: rounds of message passing.
    readout_steps: attention steps of Set2Set.

  Example:
    >>> import jax
    >>> import numpy as np
    >>> from igb_jax.data import graphs
    >>> molecule = jraph.GraphsTuple(  # two nodes, an edge each way
    ...   nodes=np.ones((2, 11)), edges=np.ones((2, 5)), senders=np.array([0, 1]),
    ...   receivers=np.array([1, 0]), n_node=np.array([2]), n_edge=np.array([2]),
    ...   globals=None)
    >>> batch = graphs.pad([molecule], graphs.SizeGroups(counts=(1,), capacities=(4,)))
    >>> net = MPNN(num_tasks=3)
    >>> variables = net.init(jax.random.key(0), batch)
    >>> net.apply(variables, batch).shape
    (1, 3)
    >>> sorted(variables["params"])
    ['heads', 'shared']
  """

  num_tasks: int
  dim: int = 64
  edge_dim: int = 128
  num_rounds: int = 3
  readout_steps: int = 3

  def setup(self) -> None:
    """Makes the encoder and the heads."""
    self.shared = _Encoder(self.dim, self.edge_dim, self.num_rounds, self.readout_steps)
    self.heads = linear(self.num_tasks, self.dim)

  def features(self, graphs: Sequence[jraph.GraphsTuple]) -> jax.Array:
    """What the heads read: f32[B, dim]; arguments as `__call__`."""
    return self.shared(graphs)

  def predict(self, features: jax.Array) -> jax.Array:
    """What the heads make of the features: f32[B, num_tasks].

    Args:
      features: f32[B, dim].
    """
    return self.heads(features)

  def __call__(self, graphs: Sequence[jraph.GraphsTuple]) -> jax.Array:
    """Predicts every task for every graph.

    Args:
      graphs: stacked padded graphs, one `GraphsTuple` a capacity, as
        `igb_jax.data.graphs.pad` makes them: nodes f32[G, n, F], edges f32[G, e, E],
        senders and receivers i32[G, e], n_node and n_edge i32[G, 2] (real, padding).
        At most one edge from a node to another.

    Returns:
      f32[B, num_tasks], in the order of the graphs, B the sum of the G.
    """
    return self.predict(self.features(graphs))
