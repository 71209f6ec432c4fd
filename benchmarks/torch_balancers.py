"""Gradient balancers and their training step in PyTorch, to time ours against.

They take K backward passes over one retained graph and flatten the gradients, as
published code does; what they do with them is written so that it costs PyTorch as
little as it can: Nash-MTL's weights come from a few Newton steps, as ours do, where the
published code solves 20 convex problems for them.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

BALANCERS = ("ew", "pcgrad", "nashmtl")
MAX_NORM = 1.0  # of Nash-MTL's gradient in the shared parameters

Batch = TypeVar("Batch")
Parameters = Sequence[nn.Parameter]


def task_gradients(
  losses: Tensor, shared: Parameters, heads: Sequence[Parameters]
) -> tuple[Tensor, Tensor, list[Sequence[Tensor]]]:
  """Takes K backward passes over one retained graph.

  Args:
    losses: f32[K].
    shared: parameters that all tasks share, P numbers.
    heads: the others, by task.

  Returns:
    The losses f32[K], their Jacobian in the shared parameters f32[K, P], and for each
    task the gradients of its head's parameters, from the same pass.
  """
  jacobian = torch.empty(len(losses), sum(p.numel() for p in shared))
  of_heads: list[Sequence[Tensor]] = []
  for k, head in enumerate(heads):
    gradients = torch.autograd.grad(
      losses[k],
      [*shared, *head],
      retain_graph=k + 1 < len(losses),  # the last pass frees the graph
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
  losses_of: Callable[[Batch], Tensor],
  shared: Parameters,
  heads: Sequence[Parameters],
  balancer: str,
  learning_rate: float,
) -> Callable[[Batch], Tensor]:
  """Returns one Adam step.

  Args:
    losses_of: a batch to the losses, f32[K].
    shared: parameters that all tasks share, updated in place.
    heads: the others, by task; updated in place.
    balancer: `ew` (the sum of the losses, one backward pass), `pcgrad` or `nashmtl`
      (K backward passes).
    learning_rate: of Adam, otherwise as PyTorch sets it.

  Returns:
    A function from a batch to the losses before the update, f32[K]. They stay a
    tensor, so that on an accelerator the step does not wait for them.

  Raises:
    ValueError: there is no such balancer here.
  """
  if balancer not in BALANCERS:
    raise ValueError(f"balancer must be one of {BALANCERS}, got {balancer!r}.")
  every = [*shared, *(parameter for head in heads for parameter in head)]
  optimizer = torch.optim.Adam(every, lr=learning_rate)
  sizes = [p.numel() for p in shared]

  def summed(batch: Batch) -> Tensor:
    losses = losses_of(batch)
    losses.sum().backward()
    return losses.detach()

  def balanced(batch: Batch) -> Tensor:
    losses, jacobian, of_heads = task_gradients(losses_of(batch), shared, heads)
    weights = torch.ones(len(losses))
    if balancer == "pcgrad":
      combined = pcgrad(jacobian)
    else:
      gramian = (jacobian @ jacobian.T).numpy().astype(np.float64)
      weights = torch.from_numpy(nash_weights(gramian)).float()
      combined = weights @ jacobian
      combined /= (combined.norm() / MAX_NORM).clamp(min=1)
    for parameter, part in zip(shared, combined.split(sizes), strict=True):
      parameter.grad = part.view_as(parameter)
    for weight, head, gradients in zip(weights, heads, of_heads, strict=True):
      for parameter, gradient in zip(head, gradients, strict=True):
        parameter.grad = weight * gradient
    return losses

  def step(batch: Batch) -> Tensor:
    optimizer.zero_grad()
    losses = summed(batch) if balancer == "ew" else balanced(batch)
    optimizer.step()
    return losses

  return step
