"""SegNet with three heads and its training step in PyTorch, to time ours against.

The layers of `igb_jax.nets.segnet` in the library's own operations: convolution, batch
norm, ReLU, max pooling that returns indices, and unpooling by them. Parameters carry
the published names, so that the golden ones load as they are. Only the benchmark
imports this file; the library does not need torch.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, torch's own name for it
from torch import Tensor, nn

from benchmarks import torch_balancers
from tests.golden_parameters import golden_parameter

FILTERS = (64, 128, 256, 512, 512)
NUM_TASKS = 3


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


def make_step(
  net: TorchSegNet, balancer: str, learning_rate: float = 1e-4
) -> Callable[[SceneTensors], Tensor]:
  """Returns one Adam step, as `torch_balancers.make_step` makes it.

  Args:
    net: the network, updated in place.
    balancer: one of `torch_balancers.BALANCERS`.
    learning_rate: of Adam.
  """
  return torch_balancers.make_step(
    lambda batch: task_losses(net, batch),
    net.shared_parameters(),
    [list(head.parameters()) for head in net.heads()],
    balancer,
    learning_rate,
  )


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
  losses, jacobian, _ = torch_balancers.task_gradients(
    task_losses(model, batch),
    model.shared_parameters(),
    [list(head.parameters()) for head in model.heads()],
  )
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
