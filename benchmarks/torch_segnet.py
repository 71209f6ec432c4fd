"""SegNet with three heads and its training step in PyTorch, to time ours against.

The layers of `igb_jax.nets.segnet` in the library's own operations: convolution, batch
norm, ReLU, max pooling that returns indices, and unpooling by them. Parameters carry
the published names, so that the golden ones load as they are. Gradient balancers take
K backward passes over one retained graph and flatten the gradients, as published code
does; what they do with them is written so that it costs PyTorch as little as it can.
Only the benchmark imports this file; the library does not need torch.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, torch's own name for it
from torch import Tensor, nn

from tests.golden_parameters import golden_parameter

FILTERS = (64, 128, 256, 512, 512)
NUM_TASKS = 3
BALANCERS = ("ew", "pcgrad", "nashmtl")
MAX_NORM = 1.0  # of Nash-MTL's gradient in the shared parameters


class SceneTensors(NamedTuple):
  """A batch of scenes, channels first.

  Attributes:
    image: f32[B, 3, H, W].
    label: i64[B, H, W], -1 where it is to be ignored.
    depth: f32[B, H, W], metres, 0 where it is unknown.
    normal: f32[B, 3, H, W], 0 where it is unknown.
  """

  image: Tensor
  label: Tensor
  depth: Tensor
  normal: Tensor


def _layer(inputs: int, outputs: int) -> nn.Sequential:
  return nn.Sequential(
    nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)
  )


def _block(level: int, width: int) -> nn.Sequential:
  if level < 2:
    return _layer(width, width)
  return nn.Sequential(_layer(width, width), _layer(width, width))


def _head(inputs: int, outputs: int) -> nn.Sequential:
  return nn.Sequential(
    nn.Conv2d(inputs, inputs, 3, padding=1), nn.Conv2d(inputs, outputs, 1)
  )


class _Parts(nn.Module):
  """The layers under their published names, in the published order."""

  def __init__(self, filters: Sequence[int], num_classes: int) -> None:
    super().__init__()
    above = [filters[0], *filters[:-1]]
    entering = zip([3, *filters[:-1]], filters, strict=True)
    leaving = zip(filters, above, strict=True)
    self.encoder_block = nn.ModuleList(_layer(*widths) for widths in entering)
    self.decoder_block = nn.ModuleList(_layer(*widths) for widths in leaving)
    self.conv_block_enc = nn.ModuleList(_block(*level) for level in enumerate(filters))
    self.conv_block_dec = nn.ModuleList(_block(*level) for level in enumerate(above))
    self.pred_task1 = _head(filters[0], num_classes)
    self.pred_task2 = _head(filters[0], 1)
    self.pred_task3 = _head(filters[0], 3)


class TorchSegNet(nn.Module):
  """SegNet with heads for segmentation, depth and surface normals.

  Kernels start Xavier normal and biases at 0, from PyTorch's own generator.

  Args:
    filters: channels of the levels, finest first.
    num_classes: number of classes of the segmentation.
  """

  def __init__(self, filters: Sequence[int] = FILTERS, num_classes: int = 13) -> None:
    super().__init__()
    self.num_levels = len(filters)
    self.segnet = _Parts(filters, num_classes)
    for module in self.modules():
      if isinstance(module, nn.Conv2d):
        nn.init.xavier_normal_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)

  def heads(self) -> list[nn.Sequential]:
    """Returns the heads of segmentation, depth and normals."""
    return [self.segnet.pred_task1, self.segnet.pred_task2, self.segnet.pred_task3]

  def shared_parameters(self) -> list[nn.Parameter]:
    """Returns the parameters every task reads: all but the heads."""
    return [p for name, p in self.named_parameters() if "pred_task" not in name]

  def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predicts segmentation, depth and normals.

    Args:
      image: f32[B, 3, H, W], H and W multiples of 32.

    Returns:
      Log-probabilities f32[B, classes, H, W], depth f32[B, H, W] and unit vectors
      f32[B, 3, H, W].
    """
    parts = self.segnet
    x, positions = image, []
    for level in range(self.num_levels):
      x = parts.conv_block_enc[level](parts.encoder_block[level](x))
      x, position = F.max_pool2d(x, 2, return_indices=True)
      positions.append(position)
    for level in reversed(range(self.num_levels)):
      x = F.max_unpool2d(x, positions[level], [2, 2])
      x = parts.conv_block_dec[level](parts.decoder_block[level](x))
    logits, depth, normal = (head(x) for head in self.heads())
    return F.log_softmax(logits, dim=1), depth[:, 0], F.normalize(normal, dim=1)


def task_losses(model: TorchSegNet, batch: SceneTensors) -> Tensor:
  """Returns cross entropy, absolute depth error and 1 - cosine of the normals, f32[3].

  Each is a mean over the pixels of the batch where the target is known.

  Args:
    model: the network.
    batch: with at least one known pixel of each target.
  """
  segmentation, depth, normal = model(batch.image)
  has_depth = batch.depth > 0
  has_normal = (batch.normal != 0).any(dim=1)
  depth_error = (depth - batch.depth).abs() * has_depth
  cosine = (normal * batch.normal).sum(dim=1)
  return torch.stack(
    [
      F.nll_loss(segmentation, batch.label, ignore_index=-1),
      depth_error.sum() / has_depth.sum(),
      ((1 - cosine) * has_normal).sum() / has_normal.sum(),
    ]
  )


def task_gradients(
  model: TorchSegNet, batch: SceneTensors
) -> tuple[Tensor, Tensor, list[Sequence[Tensor]]]:
  """Takes K backward passes over one retained graph.

  Args:
    model: the network.
    batch: scenes.

  Returns:
    The losses f32[K], their Jacobian in the shared parameters f32[K, P], and for each
    task the gradients of its head's parameters, from the same pass.
  """
  shared, losses = model.shared_parameters(), task_losses(model, batch)
  jacobian = torch.empty(NUM_TASKS, sum(p.numel() for p in shared))
  of_heads: list[Sequence[Tensor]] = []
  for k, head in enumerate(model.heads()):
    gradients = torch.autograd.grad(
      losses[k],
      [*shared, *head.parameters()],
      retain_graph=k + 1 < NUM_TASKS,  # the last pass frees the graph
    )
    flat = [gradient.flatten() for gradient in gradients[: len(shared)]]
    torch.cat(flat, out=jacobian[k])
    of_heads.append(gradients[len(shared) :])
  return losses.detach(), jacobian, of_heads


def pcgrad(jacobian: Tensor) -> Tensor:
  """PCGrad: each gradient loses what conflicts with the others, then all are summed.

  Args:
    jacobian: f32[K, P]; the other tasks come in an order drawn from PyTorch's
      generator.

  Returns:
    f32[P].
  """
  squares = [torch.dot(row, row).item() for row in jacobian]
  total = torch.zeros_like(jacobian[0])
  for i, row in enumerate(jacobian):
    projected = row.clone()
    for j in torch.randperm(len(jacobian)).tolist():
      if j == i:
        continue
      product = torch.dot(projected, jacobian[j]).item()
      if product < 0:
        projected.sub_(jacobian[j], alpha=product / squares[j])
    total += projected
  return total


def nash_weights(gramian: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
  """The a > 0 with G a = 1/a.

  It is the minimum of a^T G a / 2 - sum log a, which is self-concordant, so that
  Newton steps of length 1 / (1 + decrement), and 1 where that is small, converge.

  Args:
    gramian: f64[K, K], G, with a positive diagonal.

  Returns:
    f64[K].
  """
  norms = np.sqrt(np.diag(gramian))
  cosines = gramian / np.outer(norms, norms)
  weights = np.ones(len(norms))  # times the norms
  for _ in range(50):
    slope = cosines @ weights - 1 / weights
    change = np.linalg.solve(cosines + np.diag(weights**-2), slope)
    decrement = np.sqrt(slope @ change)
    weights = weights - change / (1 + decrement if decrement > 0.25 else 1)
    if decrement < 1e-8:
      break
  return weights / norms


def make_step(
  net: TorchSegNet, balancer: str, learning_rate: float = 1e-4
) -> Callable[[SceneTensors], Tensor]:
  """Returns one Adam step.

  Args:
    net: the network, updated in place.
    balancer: `ew` (the sum of the losses, one backward pass), `pcgrad` or `nashmtl`
      (K backward passes).
    learning_rate: of Adam, otherwise as PyTorch sets it.

  Returns:
    A function from a batch to the losses before the update, f32[K].

  Raises:
    ValueError: there is no such balancer here.
  """
  if balancer not in BALANCERS:
    raise ValueError(f"balancer must be one of {BALANCERS}, got {balancer!r}.")
  optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
  shared = net.shared_parameters()
  sizes = [p.numel() for p in shared]

  def summed(batch: SceneTensors) -> Tensor:
    losses = task_losses(net, batch)
    losses.sum().backward()
    return losses.detach()

  def balanced(batch: SceneTensors) -> Tensor:
    losses, jacobian, of_heads = task_gradients(net, batch)
    weights = torch.ones(NUM_TASKS)
    if balancer == "pcgrad":
      combined = pcgrad(jacobian)
    else:
      gramian = (jacobian @ jacobian.T).numpy().astype(np.float64)
      weights = torch.from_numpy(nash_weights(gramian)).float()
      combined = weights @ jacobian
      combined /= (combined.norm() / MAX_NORM).clamp(min=1)
    for parameter, part in zip(shared, combined.split(sizes), strict=True):
      parameter.grad = part.view_as(parameter)
    for weight, head, gradients in zip(weights, net.heads(), of_heads, strict=True):
      for parameter, gradient in zip(head.parameters(), gradients, strict=True):
        parameter.grad = weight * gradient
    return losses

  def step(batch: SceneTensors) -> Tensor:
    optimizer.zero_grad()
    losses = summed(batch) if balancer == "ew" else balanced(batch)
    optimizer.step()
    return losses

  return step


def check(
  golden_path: str | Path, rtol: float = 1e-4, gramian_tol: float = 5e-3
) -> dict[str, float]:
  """Compares the network with the golden numbers of the published one.

  Args:
    golden_path: `segnet.npz`; `segnet_params.json` lies beside it.
    rtol: error allowed in each loss, relative to it.
    gramian_tol: the same for the Gramian, relative to the norms of the two gradients;
      these jump where rounding moves a maximum or a sign.

  Returns:
    The largest error of the losses and of the Gramian of the shared parameters.

  Raises:
    ValueError: if parameters differ by name or shape, or an error is not below its
      bound.
  """
  golden_path = Path(golden_path)
  with np.load(golden_path) as file:
    golden = {name: file[name] for name in file.files}
  entries = golden_path.with_name(f"{golden_path.stem}_params.json").read_text()
  expected = [(name, tuple(shape)) for name, shape in json.loads(entries)]
  model = TorchSegNet()
  parameters = dict(model.named_parameters())
  found = [(name, tuple(p.shape)) for name, p in parameters.items()]
  if found != expected:
    raise ValueError(f"parameters differ: {sorted(set(found) ^ set(expected))}")
  state = {
    name: torch.from_numpy(golden_parameter(number, name, shape))
    for number, (name, shape) in enumerate(expected)
  }
  model.load_state_dict(model.state_dict() | state)

  batch = SceneTensors(
    image=torch.from_numpy(golden["image"]),
    label=torch.from_numpy(golden["label"].astype(np.int64)),
    depth=torch.from_numpy(golden["depth"][:, 0]),
    normal=torch.from_numpy(golden["normal"]),
  )
  losses, jacobian, _ = task_gradients(model, batch)
  gramian = (jacobian.double() @ jacobian.double().T).numpy()
  norms = np.sqrt(np.diag(golden["gramian"]))
  differences = {
    "losses": (losses.numpy() - golden["losses"]) / golden["losses"],
    "gramian": (gramian - golden["gramian"]) / np.outer(norms, norms),
  }
  errors = {name: float(np.abs(value).max()) for name, value in differences.items()}
  if not (errors["losses"] < rtol and errors["gramian"] < gramian_tol):
    raise ValueError(f"differs from {golden_path}: {errors}")
  return errors
