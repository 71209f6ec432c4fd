"""Several processes of one run: how they meet, wait for each other, and end.

`jax.distributed.initialize` waits in silence, and at its timeout aborts the process. So
what can be told before is told before.
"""

import contextlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import jax
from orbax.checkpoint.multihost import get_barrier_sync_fn

from igb_jax.training.config import RunConfig

_WAIT_SECONDS = 300  # for the other processes to be started
_RETRY_SECONDS = 0.5
_PREPARE_SECONDS = 3600  # for the other processes to prepare their data


def initialize(config: RunConfig) -> None:
  """Joins the other processes of the run, if it has any; before anything uses a device.

  Several processes are meant by `--distributed`, `--coordinator`, or the environment
  variable JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID). On TPU
  pods, and under Slurm or Open MPI, `--distributed` alone will do: JAX finds the rest.

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
    host, port = _host_and_port(address, source)
    _wait_for(host, port, count, number)
    if number == 0:
      _check_free(port)
  # it would take SIGTERM, and tell nobody but orbax
  jax.config.update("jax_enable_preemption_service", False)
  try:
    with _giving_up(address or "the first process"):
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
      "the processes of the run could not connect to "
      f"{address or 'the first process'}: {_first_line(error)}. Use a port that is "
      "free on the first process's host, and make sure that all processes are started, "
      "with the same --num-processes."
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
          f"no process listens at {host}:{port} after {_WAIT_SECONDS} s ({error}). "
          "Check that process 0 is running and has not failed, that the address is its "
          "host's, and that no firewall is in between."
        ) from error
    if not told:
      _tell(f"waiting for {host}:{port}")
      told = True
    time.sleep(_RETRY_SECONDS)


def _check_free(port: int) -> None:
  """Where a port is taken, JAX raises an error at best and crashes at worst."""
  try:
    socket.create_server(("", port)).close()
  except OSError as error:
    raise ConnectionError(
      f"the first process cannot listen at port {port}: {error.strerror}. Use another "
      "port for --coordinator, or stop what is using this one."
    ) from error


@contextlib.contextmanager
def _giving_up(address: str) -> Iterator[None]:
  """Ends the process with a message where JAX would abort it when its time is over."""

  def give_up() -> None:
    _tell(
      f"error: not all processes of the run connected to {address} within "
      f"{_WAIT_SECONDS} s. Check that all are running, with the same --num-processes, "
      "and that each has its own --process-id."
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
      "data preparation failed, or took too long, in another process of the run; see "
      f"its output: {_first_line(error)}"
    ) from error


def is_of_another_process(error: RuntimeError) -> bool:
  """Whether another process may have ended while this one waited for it."""
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
