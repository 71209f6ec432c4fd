"""Many devices: batches divided over one axis of a mesh, large parameters over another.

    mesh [data, model]:    batch leaf [B, ...]     -> B over data
                           parameter [..., n, ...] -> its largest divisible n over model

One jitted step runs on all of them, and XLA's partitioner puts in the communication, so
that the mathematics is that of one device: losses, batch statistics, task gradients and
Gramians are of the whole batch. With several processes each makes its part of every
batch.
"""

import collections
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from igb_jax.data.loader import BatchSource, prefetch
from igb_jax.data.part import Part
from igb_jax.training.step import Batch, Placement, TrainState

AXES = ("data", "model")
_LEAST_SHARDED = 4096  # numbers; a smaller leaf costs more to gather than to keep


def parse_mesh(text: str) -> dict[str, int]:
  """Reads the sizes of the mesh's axes; one that is not named has the size 1.

  Raises:
    ValueError: it is not of that form.

  Example:
    >>> parse_mesh("model=2,data=4")
    {'data': 4, 'model': 2}
  """
  sizes: dict[str, int] = dict.fromkeys(AXES, 1)
  named = re.findall(r"(\w+)=([1-9]\d*)", text)
  if ",".join(f"{axis}={size}" for axis, size in named) != text or not text:
    raise ValueError(f"--mesh must be like data=4,model=2, got {text!r}.")
  for axis, size in named:
    if axis not in sizes or [name for name, _ in named].count(axis) > 1:
      raise ValueError(
        f"--mesh has the axes {' and '.join(AXES)}, each once, got {text!r}."
      )
    sizes[axis] = int(size)
  return sizes


class Devices:
  """The devices of a run.

  Attributes:
    mesh: the mesh of the devices, with the axes `data` and `model`; in the order of the
      processes, so that each has neighbouring rows of a batch.
    part: the part of every batch that this process makes.
    whole: the sharding of what is on every device whole.
  """

  def __init__(self, num_devices: int | None = None, mesh: str | None = None):
    """Makes the mesh.

    Args:
      num_devices: use the first ones only; None for all, or as many as the mesh has.
      mesh: sizes of its axes, see `parse_mesh`; all data by default.

    Raises:
      ValueError: there are fewer devices, or other numbers than the mesh has, or not
        the same number of them in every process, or several processes do not use all.
    """
    every = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    sizes = parse_mesh(mesh) if mesh else None
    if num_devices is None:
      num_devices = math.prod(sizes.values()) if sizes else len(every)
    if sizes is None:
      sizes = {"data": num_devices, "model": 1}
    if not 1 <= num_devices <= len(every):
      raise ValueError(
        f"{'--mesh' if mesh else '--devices'} asks for {num_devices} devices, but "
        f"there are {len(every)} ({every[0].device_kind}); ask for 1 to {len(every)}."
      )
    if math.prod(sizes.values()) != num_devices:
      raise ValueError(
        f"--mesh={mesh} needs {math.prod(sizes.values())} devices, but --devices="
        f"{num_devices}; leave out one of the two, or make them agree."
      )
    self._check_processes(every, num_devices, sizes)
    grid = np.array(every[:num_devices]).reshape(tuple(sizes.values()))
    self.mesh = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    self.part = self._own_part(grid)
    self.whole = NamedSharding(self.mesh, PartitionSpec())
    self._over_data = NamedSharding(self.mesh, PartitionSpec("data"))

  @staticmethod
  def _check_processes(
    every: Sequence[Any], num_devices: int, sizes: Mapping[str, int]
  ) -> None:
    """Checks that every process has a like part; all refuse, or none."""
    counts = collections.Counter(device.process_index for device in every)
    if len(counts) == 1:
      return
    if num_devices != len(every):
      raise ValueError(
        f"several processes use all their devices: {len(every)}, not {num_devices}; "
        "leave out --devices, or make --mesh as large."
      )
    each, model = min(counts.values()), sizes["model"]
    if each != max(counts.values()) or (each % model and model % each):
      raise ValueError(
        f"the mesh's axis model={model} cannot be divided evenly over processes with "
        f"{', '.join(str(counts[process]) for process in sorted(counts))} devices; all "
        "must have the same number, and `model` must divide it or be a multiple of it."
      )

  @staticmethod
  def _own_part(grid: np.ndarray) -> Part:
    process = jax.process_index()
    is_own = np.array([device.process_index == process for device in grid.flat])
    rows = np.flatnonzero(is_own.reshape(grid.shape).any(axis=1))
    return Part(int(rows[0] // len(rows)), len(grid) // len(rows))

  @property
  def num_parts(self) -> int:
    """Into how many parts a batch is divided: the size of the axis `data`."""
    return self.mesh.shape["data"]

  def describe(self) -> str:
    """What they are, such as "8 x NVIDIA H100"; the kind alone where it is one."""
    kind = self.mesh.devices.flat[0].device_kind
    return kind if self.mesh.size == 1 else f"{self.mesh.size} x {kind}"

  def check_batch_size(self, batch_size: int) -> None:
    """Checks that a batch can be divided over the devices.

    Raises:
      ValueError: it is not a multiple of the number of parts.
    """
    if batch_size % self.num_parts:
      raise ValueError(
        f"--batch-size={batch_size} cannot be divided over {self.num_parts} devices; "
        f"take a multiple of {self.num_parts}, or fewer --devices."
      )

  def shardings(self, state: TrainState) -> TrainState:
    """Where the leaves of a state go: parameters and optimiser over `model`.

    A leaf of fewer than 4096 numbers, or without an axis that the axis `model` divides,
    is on every device whole.
    """
    divided = {
      name: jax.tree.map(self._over_model, getattr(state, name))
      for name in ("params", "optimizer")
    }
    return jax.tree.map(lambda leaf: self.whole, state)._replace(**divided)

  def _over_model(self, leaf: Any) -> NamedSharding:
    count, shape = self.mesh.shape["model"], leaf.shape
    axes = [axis for axis in range(len(shape)) if shape[axis] % count == 0]
    if count == 1 or math.prod(shape) < _LEAST_SHARDED or not axes:
      return self.whole
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, "model"))

  @property
  def placement(self) -> Placement:
    """What keeps the training step's arrays where they are."""
    constrain = jax.lax.with_sharding_constraint
    return Placement(
      state=lambda state: constrain(state, self.shardings(state)),
      params=lambda params: constrain(params, jax.tree.map(self._over_model, params)),
    )

  def put_state(self, state: TrainState) -> TrainState:
    """The state, the same in every process, on the devices."""
    return jax.device_put(state, self.shardings(state))

  def put_batch(self, batch: Any) -> Any:
    """A batch on the devices, divided by rows; each process gives its part of it."""
    if self.part.count == 1 and jax.process_count() == 1:
      return jax.device_put(batch, self._over_data)
    return jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(self._over_data, leaf), batch
    )

  def summed(
    self, add: Callable[[Any, Batch, Any], Any], zero: Any
  ) -> Callable[[Any, BatchSource[Batch]], Any]:
    """`(net, source) -> total` of all its batches, the whole of it on every device.

    Args:
      add: `(net, batch, total) -> total`, to be jitted.
      zero: the total before the first batch.
    """
    zero = jax.device_get(zero)  # the total is donated, and this stays
    jitted = jax.jit(add, donate_argnums=2, out_shardings=self.whole)

    def total_of(net: Any, source: BatchSource[Batch]) -> Any:
      total = jax.device_put(zero, self.whole)
      for batch in prefetch(source):
        total = jitted(net, self.put_batch(batch), total)
      return total

    return total_of
