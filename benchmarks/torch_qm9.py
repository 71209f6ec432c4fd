"""The QM9 network and its training step in PyTorch, to time ours against.

This is the published network as torch_geometric writes it: `NNConv` builds one
64x64 matrix per edge in each of three rounds, where our network re-associates
the sum and never builds them. Node state h, edge features e:

    h <- GRU(ReLU(h W_root + b + mean over incoming j of h_j W(e_ij)), h)

then `Set2Set`, a linear layer and one linear head per task. Parameters carry the
names of the published checkpoint, so its `state_dict` loads as it is. Only the
benchmark imports this file; the library needs neither torch nor torch_geometric.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, torch's own name for it
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import NNConv, Set2Set

from benchmarks import torch_balancers

NODE_FEATURES = 11
EDGE_FEATURES = 5

Molecule = tuple[
  npt.NDArray[np.float32],
  npt.NDArray[np.int64],
  npt.NDArray[np.float32],
  npt.NDArray[np.float32],
]


class TorchMPNN(nn.Module):
  """Message-passing network with one scalar head per task.

  Args:
    dim: width of the node state.
    num_tasks: K, the number of heads.
  """

  def __init__(self, dim: int = 64, num_tasks: int = 11) -> None:
    super().__init__()
    self.num_tasks = num_tasks
    self.lin0 = nn.Linear(NODE_FEATURES, dim)
    edge_network = nn.Sequential(
      nn.Linear(EDGE_FEATURES, 128), nn.ReLU(), nn.Linear(128, dim * dim)
    )
    self.conv = NNConv(dim, dim, edge_network, aggr="mean")
    self.gru = nn.GRU(dim, dim)
    self.set2set = Set2Set(dim, processing_steps=3)
    self.lin1 = nn.Linear(2 * dim, dim)
    for k in range(num_tasks):
      self.add_module(f"head_{k}", nn.Linear(dim, 1))

  def shared_parameters(self) -> list[nn.Parameter]:
    """Returns the parameters every task reads: all but the heads."""
    return [p for name, p in self.named_parameters() if not name.startswith("head_")]

  def heads(self) -> list[list[nn.Parameter]]:
    """Returns the parameters of each task's head."""
    return [
      list(self.get_submodule(f"head_{k}").parameters()) for k in range(self.num_tasks)
    ]

  def features(self, data: Data | Batch) -> Tensor:
    """Returns what the heads read, f32[B, dim]."""
    data = cast(Data, data)  # torch_geometric makes every batch of Data a Data
    nodes = F.relu(self.lin0(data.x))
    hidden = nodes.unsqueeze(0)
    for _ in range(3):
      message = F.relu(self.conv(nodes, data.edge_index, data.edge_attr))
      nodes, hidden = self.gru(message.unsqueeze(0), hidden)
      nodes = nodes.squeeze(0)
    return F.relu(self.lin1(self.set2set(nodes, data.batch)))

  def forward(self, data: Data | Batch) -> Tensor:
    """Returns the predictions, f32[B, K], of one molecule or of a batch."""
    features = self.features(data)
    heads = [self.get_submodule(f"head_{k}") for k in range(self.num_tasks)]
    return torch.cat([head(features) for head in heads], dim=-1)


def batch_from_arrays(molecules: Sequence[Molecule]) -> Batch:
  """Joins molecules into one graph.

  Args:
    molecules: (x f32[n, 11], edge_index i64[2, E], edge_attr f32[E, 5], y f32[K])
      each, with edges from row 0 to row 1.

  Returns:
    The batch, with `y` f32[B, K].
  """
  return Batch.from_data_list(
    [
      Data(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(edge_index),
        edge_attr=torch.from_numpy(edge_attr),
        y=torch.from_numpy(y).unsqueeze(0),
      )
      for x, edge_index, edge_attr, y in molecules
    ]
  )


def task_losses(model: TorchMPNN, batch: Data | Batch) -> Tensor:
  """Returns the mean squared error of each task over the molecules, f32[K]."""
  targets = cast(Data, batch).y
  return (model(batch) - targets).square().mean(dim=0)


def make_step(
  model: TorchMPNN, balancer: str = "ew", learning_rate: float = 1e-3
) -> Callable[[Batch], Tensor]:
  """Returns one Adam step, as `torch_balancers.make_step` makes it.

  Args:
    model: the network, updated in place.
    balancer: one of `torch_balancers.BALANCERS`.
    learning_rate: of Adam.
  """
  return torch_balancers.make_step(
    lambda batch: task_losses(model, batch),
    model.shared_parameters(),
    model.heads(),
    balancer,
    learning_rate,
  )


def check(
  golden_path: str | Path, rtol: float = 1e-5, gramian_rtol: float = 2e-5
) -> dict[str, float]:
  """Compares the network with the golden numbers of the published one.

  Args:
    golden_path: `mpnn.npz`.
    rtol: error allowed in features, predictions and losses, relative to the
      largest number of each array.
    gramian_rtol: the same for the Gramian. The golden one is a float32 sum over
      616,960 parameters, 1.36e-5 away from the same product in float64.

  Returns:
    That error for features, predictions, losses and the Gramian of the shared
    parameters.

  Raises:
    ValueError: if parameters differ by name or an error is not below its bound.
  """
  with np.load(golden_path) as file:
    golden = {name: file[name] for name in file.files}
  model = TorchMPNN(num_tasks=golden["y"].shape[1])
  prefix = "param/"
  model.load_state_dict(
    {
      name.removeprefix(prefix): torch.from_numpy(value)
      for name, value in golden.items()
      if name.startswith(prefix)
    }
  )
  shared_names = [n for n, _ in model.named_parameters() if not n.startswith("head_")]
  if set(shared_names) != set(golden["shared_names"].tolist()):
    raise ValueError(f"shared parameters differ: {shared_names}")

  # Taken apart and joined again, so that `batch_from_arrays` is checked too.
  graph, edge_index = golden["graph"], golden["edge_index"]
  molecules: list[Molecule] = []
  for i, y in enumerate(golden["y"]):
    nodes, edges = np.flatnonzero(graph == i), graph[edge_index[0]] == i
    molecules.append(
      (
        golden["x"][nodes],
        edge_index[:, edges] - nodes[0],
        golden["edge_attr"][edges],
        y,
      )
    )
  batch = batch_from_arrays(molecules)

  with torch.no_grad():
    found = {
      "features": model.features(batch),
      "pred": model(batch),
      "losses": task_losses(model, batch),
    }
  losses = task_losses(model, batch)
  _, jacobian, _ = torch_balancers.task_gradients(
    losses, model.shared_parameters(), model.heads()
  )
  jacobian = jacobian.double()
  found["gramian"] = jacobian @ jacobian.T
  errors = {
    name: float(np.abs(value.numpy() - golden[name]).max() / np.abs(golden[name]).max())
    for name, value in found.items()
  }
  bounds = dict.fromkeys(errors, rtol) | {"gramian": gramian_rtol}
  if not all(error < bounds[name] for name, error in errors.items()):
    raise ValueError(f"differs from {golden_path}: {errors}")
  return errors
