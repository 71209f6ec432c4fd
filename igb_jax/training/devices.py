"""Many devices: batches divided over one axis of a mesh, large parameters over another.

    mesh [data, model]:    batch leaf [B, ...]     -> B over data
                           parameter [..., n, ...] -> its largest divisible n over model

One jitted step runs on all of them, and XLA's partitioner puts in the communication, so
that the mathematics is that of one device: losses, batch statistics, task gradients and
Gramians are of the whole batch. With several processes each makes its part of every
batch.
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from igb_jax.data.part import Part
from igb_jax.training.step import Placement, TrainState

AXES = ("data", "model")
_LEAST_SHARDED = 4096  # numbers; a smaller leaf costs more to gather than to keep


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
  """What a command line says of devices; the base of an experiment's configuration."""

  devices: int | None = None
  """Use only the first of the devices, that many; None for all."""
  mesh: str | None = None
  """Sizes of the mesh's axes, such as data=4,model=2: batches are divided over `data`,
  large parameters over `model`. By default all devices share the data."""
  distributed: bool = False
  """The run has several processes, which JAX finds by itself (TPU pods, Slurm, Open
  MPI) or by the options below."""
  coordinator: str | None = None
  """HOST:PORT of the first process; by default $JAX_COORDINATOR_ADDRESS."""
  num_processes: int | None = None
  """Number of processes; by default $JAX_NUM_PROCESSES."""
  process_id: int | None = None
  """Number of this process, from 0; by default $JAX_PROCESS_ID."""


def initialize(config: DeviceConfig) -> None:
  """Joins the other processes of the run, if it has any; before anything uses a device.

  Several processes are meant by `--distributed`, `--coordinator`, or the environment
  variable JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID). On TPU
  pods, and under Slurm or Open MPI, `--distributed` alone will do: JAX finds the rest.

  Args:
    config: of the run.

  Raises:
    ValueError: what is needed to find the others is missing, or wrong.
    RuntimeError: the others cannot be reached.
  """
  address = config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  if not (config.distributed or address):
    if config.num_processes is not None or config.process_id is not None:
      raise ValueError(
        "--num-processes and --process-id need --coordinator, the address of the first "
        "process; without it each process would train by itself."
      )
    return
  jax.distributed.initialize(
    address,
    _number(config.num_processes, "JAX_NUM_PROCESSES"),
    _number(config.process_id, "JAX_PROCESS_ID"),
  )


def _number(value: int | None, variable: str) -> int | None:
  text = os.environ.get(variable)
  if value is not None or text is None:
    return value
  if not text.isdecimal():
    raise ValueError(f"the environment's {variable} must be a number, got {text!r}.")
  return int(text)


def parse_mesh(text: str) -> dict[str, int]:
  """Reads the sizes of the mesh's axes.

  Args:
    text: such as "data=4,model=2"; an axis that is not named has the size 1.

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
    mesh: of the devices, with the axes `data` and `model`; in the order of the
      processes, so that each has neighbouring rows of a batch.
    part: of every batch that this process makes.
    whole: the sharding of what is on every device whole.
  """

  def __init__(self, num_devices: int | None = None, mesh: str | None = None):
    """Makes the mesh.

    Args:
      num_devices: use the first ones only; None for all, or as many as the mesh has.
      mesh: sizes of its axes, see `parse_mesh`; all data by default.

    Raises:
      ValueError: there are fewer devices, or other numbers than the mesh has, or not
        the same number of them in every process.
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
        f"--mesh={mesh} has {math.prod(sizes.values())} places for --devices="
        f"{num_devices}; leave out one of the two, or make them agree."
      )
    grid = np.array(every[:num_devices]).reshape(tuple(sizes.values()))
    self.mesh = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    self.part = self._own_part(grid)
    self.whole = NamedSharding(self.mesh, PartitionSpec())
    self._over_data = NamedSharding(self.mesh, PartitionSpec("data"))

  @staticmethod
  def _own_part(grid: np.ndarray) -> Part:
    process = jax.process_index()
    is_own = np.array([device.process_index == process for device in grid.flat])
    rows = np.flatnonzero(is_own.reshape(grid.shape).any(axis=1))
    if len(rows) == 0 or len(grid) % len(rows) or rows[0] % len(rows):
      raise ValueError(
        f"process {process} has {len(rows)} of the mesh's {len(grid)} rows of devices, "
        "which cannot be divided alike; use all devices, and a `model` axis that "
        "divides a process's devices or is a multiple of them."
      )
    return Part(int(rows[0] // len(rows)), len(grid) // len(rows))

  @property
  def num_parts(self) -> int:
    """Into how many parts a batch is divided: the size of the axis `data`."""
    return self.mesh.shape["data"]

  @property
  def is_first(self) -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0

  def check_batch_size(self, batch_size: int) -> None:
    """Checks that a batch can be divided over the devices.

    Args:
      batch_size: B.

    Raises:
      ValueError: it is no multiple of the number of parts.
    """
    if batch_size % self.num_parts:
      raise ValueError(
        f"--batch-size={batch_size} cannot be divided over {self.num_parts} devices; "
        f"take a multiple of {self.num_parts}, or fewer --devices."
      )

  def shardings(self, state: TrainState) -> TrainState:
    """Where the leaves of a state go: parameters and optimiser over `model`.

    Args:
      state: of arrays, or of their shapes.

    Returns:
      A sharding a leaf. A leaf of fewer than 4096 numbers, or without an axis that the
      axis `model` divides, is on every device whole.
    """
    divided = {
      name: jax.tree.map(self._over_model, getattr(state, name))
      for name in ("params", "optimizer")
    }
    return jax.tree.map(lambda leaf: self.whole, state)._replace(**divided)

  def _over_model(self, leaf: Any, first: int = 0) -> NamedSharding:
    """Where a leaf goes, of which only the axes from `first` on count."""
    count, shape = self.mesh.shape["model"], leaf.shape
    axes = [axis for axis in range(first, len(shape)) if shape[axis] % count == 0]
    if count == 1 or math.prod(shape[first:]) < _LEAST_SHARDED or not axes:
      return self.whole
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, "model"))

  @property
  def placement(self) -> Placement:
    """What keeps the training step's arrays where they are."""

    def constrain_state(state: TrainState) -> TrainState:
      return jax.lax.with_sharding_constraint(state, self.shardings(state))

    def constrain_task_grads(task_grads: Any) -> Any:
      shardings = jax.tree.map(lambda leaf: self._over_model(leaf, 1), task_grads)
      return jax.lax.with_sharding_constraint(task_grads, shardings)

    return Placement(constrain_state, constrain_task_grads)

  def put_state(self, state: TrainState) -> TrainState:
    """The state on the devices.

    Args:
      state: the same in every process.
    """
    return jax.device_put(state, self.shardings(state))

  def put_batch(self, batch: Any) -> Any:
    """A batch on the devices, divided along its first axis.

    Args:
      batch: this process's part of it, leaves [B / count, ...].
    """
    if self.part.count == 1 and jax.process_count() == 1:
      return jax.device_put(batch, self._over_data)
    return jax.tree.map(
      lambda leaf: jax.make_array_from_process_local_data(self._over_data, leaf), batch
    )
