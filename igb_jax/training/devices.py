"""Many devices: batches divided over one axis of a mesh, large parameters over another.

    mesh [data, model]:    batch leaf [B, ...]     -> B over data
                           parameter [..., n, ...] -> its largest divisible n over model

One jitted step runs on all of them, and XLA's partitioner puts in the communication, so
that the mathematics is that of one device: losses, batch statistics, task gradients and
Gramians are of the whole batch. With several processes each makes its part of every
batch.
"""

import collections
import contextlib
import dataclasses
import math
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint.multihost import get_barrier_sync_fn

from igb_jax.data.part import Part
from igb_jax.training.step import Placement, TrainState

AXES = ("data", "model")
_LEAST_SHARDED = 4096  # numbers; a smaller leaf costs more to gather than to keep
_WAIT_SECONDS = 300  # for the other processes to be started
_RETRY_SECONDS = 0.5
_PREPARE_SECONDS = 3600  # for the other processes to prepare their data


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
  """What a command line says of devices; the base of an experiment's configuration."""

  devices: int | None = None
  """Use only the first of the devices, that many; None for all, as several processes
  must."""
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
    ConnectionError: the others cannot be reached.
  """
  address = config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  count = _number(config.num_processes, "JAX_NUM_PROCESSES")
  number = _number(config.process_id, "JAX_PROCESS_ID")
  if not (config.distributed or address):
    if count is not None or number is not None:
      raise ValueError(
        "--num-processes and --process-id (or JAX_NUM_PROCESSES and JAX_PROCESS_ID in "
        "the environment) need --coordinator, the address of the first process; "
        "without it each process would train by itself."
      )
    return
  if address:
    source = "--coordinator" if config.coordinator else "JAX_COORDINATOR_ADDRESS"
    _check_numbers(count, number)
    _wait_for(*_host_and_port(address, source), count, number)
  # it would take SIGTERM, and tell nobody but orbax
  jax.config.update("jax_enable_preemption_service", False)
  try:
    with _giving_up(address or "the first one"):
      jax.distributed.initialize(
        address, count, number, initialization_timeout=2 * _WAIT_SECONDS
      )
  except ValueError as error:
    raise ValueError(
      f"the processes of the run cannot find each other: {error} Give --coordinator, "
      "--num-processes and --process-id."
    ) from error
  except RuntimeError as error:
    raise ConnectionError(
      f"the processes of the run cannot meet at {address or 'the first one'}: "
      f"{_first_line(error)}. Take a port that is free on the first process's host, "
      "and see that all processes are started, with the same --num-processes."
    ) from error


def _number(value: int | None, variable: str) -> int | None:
  text = os.environ.get(variable)
  if value is not None or text is None:
    return value
  if not text.isdecimal():
    raise ValueError(f"the environment's {variable} must be a number, got {text!r}.")
  return int(text)


def _check_numbers(count: int | None, number: int | None) -> None:
  if count is not None and count < 1:
    raise ValueError(f"--num-processes must be at least 1, got {count}.")
  if number is not None and not 0 <= number < (count or number + 1):
    raise ValueError(
      f"--process-id must be from 0 to --num-processes - 1, got {number}"
      + (f" of {count}." if count else ".")
    )


def _host_and_port(address: str, source: str) -> tuple[str, int]:
  match = re.fullmatch(r"(\[[^\[\]]+\]|[^:\[\]]+):(\d{1,5})", address, re.ASCII)
  if match is None or not 0 < int(match[2]) < 2**16:
    raise ValueError(f"{source} must be HOST:PORT, got {address!r}.")
  return match[1].strip("[]"), int(match[2])


def _wait_for(host: str, port: int, count: int | None, number: int | None) -> None:
  """Waits until the first process listens; JAX would wait silently, and then abort."""
  if number is None:  # JAX has yet to find out whether it is this one
    return
  if number == 0:
    _check_free(port)  # JAX crashes where it is not
    if count is None or count > 1:
      _tell(f"waiting at {host}:{port} for the other processes")
    return
  deadline = time.monotonic() + _WAIT_SECONDS
  told = False
  while True:
    try:
      with socket.create_connection((host, port), timeout=5):
        return
    except OSError as error:
      if time.monotonic() > deadline:
        raise ConnectionError(
          f"no process listens at {host}:{port} after {_WAIT_SECONDS} s ({error}). See "
          "that process 0 is running and has not failed, that the address is that of "
          "its host, and that no firewall is between."
        ) from error
    if not told:
      _tell(f"waiting for {host}:{port}")
      told = True
    time.sleep(_RETRY_SECONDS)


def _check_free(port: int) -> None:
  try:
    socket.create_server(("", port)).close()
  except OSError as error:
    raise ConnectionError(
      f"the first process cannot listen at port {port}: {error.strerror}. Take another "
      "port for --coordinator, or end what uses this one."
    ) from error


@contextlib.contextmanager
def _giving_up(address: str) -> Iterator[None]:
  """Ends the process with a message where JAX would abort it when its time is over."""

  def give_up() -> None:
    _tell(
      f"error: not all processes of the run have met at {address} after "
      f"{_WAIT_SECONDS} s. See that all are started, with the same --num-processes, "
      "and that each has a --process-id of its own."
    )
    os._exit(2)

  timer = threading.Timer(_WAIT_SECONDS, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def _tell(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
  return str(error).partition("\n")[0].rstrip(". ")


def wait_for_all() -> None:
  """Waits until every process has come here, however long its data took.

  The first collective would wait for seconds only (30 s on CPUs).

  Raises:
    ConnectionError: another process did not come.
  """
  try:
    barrier = get_barrier_sync_fn()
    barrier(key="igb_jax: data are prepared", timeout_ms=_PREPARE_SECONDS * 1000)
  except RuntimeError as error:
    raise ConnectionError(
      "not every process of the run could prepare its data; see what the others say: "
      f"{_first_line(error)}"
    ) from error


def is_of_another_process(error: RuntimeError) -> bool:
  """Whether the cause may be that another process ended, while this one waited for it.

  Args:
    error: a JaxRuntimeError that a computation raised.
  """
  return jax.process_count() > 1 and "RESOURCE_EXHAUSTED" not in str(error)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
  """Ends one of several processes as soon as an exception leaves the context.

  JAX would wait at exit for the others, which wait for this one in a collective. So
  their collectives break at once, and they end too.
  """
  try:
    yield
  except BaseException as error:
    if not jax.distributed.is_initialized():
      raise
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
      traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def describe_devices(num_devices: int | None, mesh: str | None) -> str:
  """What a run uses, such as "8 x NVIDIA H100"; the kind alone where it is one device.

  Args:
    num_devices: as for `Devices`.
    mesh: as for `Devices`.
  """
  every = jax.devices()
  if mesh:
    num_devices = math.prod(parse_mesh(mesh).values())
  kind, count = every[0].device_kind, num_devices or len(every)
  return kind if count == 1 else f"{count} x {kind}"


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
        f"--mesh={mesh} has {math.prod(sizes.values())} places for --devices="
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
        f"the mesh's axis model={model} cannot be divided alike over processes with "
        f"{', '.join(str(counts[process]) for process in sorted(counts))} devices; all "
        "must have as many, and `model` divide their number or be a multiple of it."
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

  def _over_model(self, leaf: Any) -> NamedSharding:
    """Where a leaf goes."""
    count, shape = self.mesh.shape["model"], leaf.shape
    axes = [axis for axis in range(len(shape)) if shape[axis] % count == 0]
    if count == 1 or math.prod(shape) < _LEAST_SHARDED or not axes:
      return self.whole
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, "model"))

  @property
  def placement(self) -> Placement:
    """What keeps the training step's arrays where they are."""

    def constrain_state(state: TrainState) -> TrainState:
      return jax.lax.with_sharding_constraint(state, self.shardings(state))

    def constrain_params(params: Any) -> Any:
      shardings = jax.tree.map(self._over_model, params)
      return jax.lax.with_sharding_constraint(params, shardings)

    return Placement(constrain_state, constrain_params)

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
