"""Runs of several processes: equal to one, stopped together, and how they meet."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import qm9
from igb_jax.training import processes
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.config import RunConfig
from igb_jax.training.processes import initialize
from tests.experiments.molecule_runs import small
from tests.experiments.running import exit_code, read_metrics

# What a process does that fails at the first step of its fourth epoch.
FAILING = """
from experiments import qm9
from igb_jax.training.experiment import Experiment
from igb_jax.data.errors import LoadingError

batches_of = Experiment.epoch_batches

def epoch_batches(self, epoch, start=0):
  if epoch == 3:
    raise LoadingError("a batch is broken")
  return batches_of(self, epoch, start)

Experiment.epoch_batches = epoch_batches
qm9.main()
"""


def start(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
  program = ["-c", code] if code else ["-m", "experiments.qm9"]
  return subprocess.Popen(
    [sys.executable, *program, *arguments],
    cwd=Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def start_two(
  arguments: list[str], codes: tuple[str | None, str | None] = (None, None)
) -> list[subprocess.Popen[str]]:
  port = free_port()
  return [
    start(
      *arguments,
      f"--coordinator=127.0.0.1:{port}",
      "--num-processes=2",
      f"--process-id={number}",
      code=code,
    )
    for number, code in enumerate(codes)
  ]


def wait_for_epochs(out: Path, count: int, process: subprocess.Popen[str]) -> None:
  while not (out / "metrics.jsonl").exists() or len(read_metrics(out)) < count:
    assert process.poll() is None, process.communicate()
    time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["uw", "igbv1+nashmtl"])
def test_two_processes_equal_one(balancer, qm9_dir, tmp_path):
  options = f"--balancer={balancer}", "--epochs=2"
  processes = start_two(small(qm9_dir, tmp_path / "two", *options))
  outputs = [process.communicate(timeout=400) for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output
  assert "test of epoch" in outputs[0][0]
  assert outputs[1][0].count("epoch") == 0  # the second process is silent

  assert exit_code(qm9.main, small(qm9_dir, tmp_path / "one", *options)) == 0
  two, one = (read_metrics(tmp_path / name) for name in ("two", "one"))
  assert len(two) == len(one) == 2
  for ours, expected in zip(two, one, strict=True):
    for key in ("losses", "weights", "validation"):
      np.testing.assert_allclose(
        list(ours[key].values()), list(expected[key].values()), 1e-4
      )
    if "+" in balancer:
      np.testing.assert_allclose(
        ours["gradient_weights"], expected["gradient_weights"], 1e-3
      )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "who"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_to_one_stops_both_and_they_go_on(qm9_dir, tmp_path, number, who):
  options = "--balancer=rlw", "--epochs=20"
  out, whole = tmp_path / "run", tmp_path / "whole"
  processes = start_two(small(qm9_dir, out, *options))
  wait_for_epochs(out, 2, processes[0])
  processes[who].send_signal(number)
  outputs = [process.communicate(timeout=60) for process in processes]
  assert [process.returncode for process in processes] == [143, 143], outputs
  assert "stopped and saved; to resume:" in outputs[0][0]
  epochs = len(read_metrics(out))
  assert 2 <= epochs < 20
  with Checkpoints(out / "checkpoints") as checkpoints:
    assert not checkpoints.damaged
    assert checkpoints.newest is not None
    assert 5 * epochs <= checkpoints.newest < 5 * (epochs + 1)

  for arguments in (
    small(qm9_dir, out, *options, "--resume"),
    small(qm9_dir, whole, *options),
  ):
    for process in (processes := start_two(arguments)):
      _, errors = process.communicate(timeout=400)
      assert process.returncode == 0, errors
  resumed, expected = read_metrics(out), read_metrics(whole)
  assert len(resumed) == len(expected) == 20
  for line, as_it_was in zip(resumed, expected, strict=True):
    for key in ("losses", "weights", "validation"):
      assert line[key] == as_it_was[key]


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_an_error_in_one_ends_the_other(qm9_dir, tmp_path, who):
  codes = (FAILING, None) if who == 0 else (None, FAILING)
  out = tmp_path / "run"
  processes = start_two(small(qm9_dir, out, "--balancer=rlw", "--epochs=20"), codes)
  wait_for_epochs(out, 3, processes[0])
  _, errors = processes[who].communicate(timeout=60)
  assert processes[who].returncode == 1
  assert "error: a batch is broken" in errors
  begin = time.monotonic()
  _, errors = processes[1 - who].communicate(timeout=60)
  assert time.monotonic() - begin < 20
  assert "Traceback" not in errors
  # where the first one has gone, JAX may abort before the message is out
  if who == 1 or processes[1].returncode != -signal.SIGABRT:
    assert processes[1 - who].returncode == 1, errors
    assert "another process of the run has ended; to resume:" in errors


@pytest.mark.parametrize("option", ["--num-processes=2", "--process-id=0"])
def test_processes_that_cannot_find_each_other(qm9_dir, tmp_path, capsys, option):
  assert exit_code(qm9.main, small(qm9_dir, tmp_path / "run", option)) == 2
  assert "need --coordinator" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_the_environment_without_an_address(monkeypatch, variable):
  monkeypatch.setenv(variable, "1")
  with pytest.raises(ValueError, match=f"{variable}.* need --coordinator"):
    initialize(RunConfig())


@pytest.mark.parametrize(
  "address", ["localhost", "localhost:", ":1234", "a:b:1234", "host:0", "host:65536"]
)
@pytest.mark.parametrize("source", ["--coordinator", "JAX_COORDINATOR_ADDRESS"])
def test_the_address_is_checked(monkeypatch, source, address):
  config = RunConfig(coordinator=address)
  if source != "--coordinator":
    monkeypatch.setenv(source, address)
    config = RunConfig()
  with pytest.raises(ValueError, match=f"{source} must be HOST:PORT, got '{address}'"):
    initialize(config)


@pytest.mark.parametrize(
  ("count", "number", "message"),
  [
    (0, 0, "--num-processes must be at least 1, got 0"),
    (2, 2, "--process-id must be from 0 to --num-processes - 1, got 2 of 2"),
    (None, -1, "--process-id must be from 0 to --num-processes - 1, got -1"),
  ],
)
def test_the_numbers_are_checked(count, number, message):
  config = RunConfig(coordinator="127.0.0.1:1", num_processes=count, process_id=number)
  with pytest.raises(ValueError, match=message):
    initialize(config)


def test_the_environments_numbers_must_be_numbers(qm9_dir, tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
  config = qm9.parse_config(small(qm9_dir, tmp_path / "run"))
  with pytest.raises(ValueError, match="JAX_NUM_PROCESSES must be a number, got 'two'"):
    initialize(config)


def test_a_first_process_that_is_not_there(monkeypatch, capsys):
  monkeypatch.setattr(processes, "_WAIT_SECONDS", 1.2)
  address = f"127.0.0.1:{free_port()}"
  config = RunConfig(coordinator=address, num_processes=2, process_id=1)
  with pytest.raises(ConnectionError, match=f"no process listens at {address}"):
    initialize(config)
  assert capsys.readouterr().err == f"waiting for {address}\n"


def test_a_port_that_is_taken(qm9_dir, tmp_path):
  with socket.socket(socket.AF_INET6) as taken:
    taken.bind(("::", 0))
    taken.listen()
    address = f"localhost:{taken.getsockname()[1]}"
    process = start(
      *small(qm9_dir, tmp_path / "run"),
      f"--coordinator={address}",
      "--num-processes=2",
      "--process-id=0",
    )
    _, errors = process.communicate(timeout=60)
  assert process.returncode == 2, errors
  port = address.partition(":")[2]
  assert f"cannot listen at port {port}" in " ".join(errors.split())
  assert "Traceback" not in errors


def test_a_first_process_that_stays_alone():
  code = f"""
from igb_jax.training import processes
processes._WAIT_SECONDS = 1
processes.initialize(processes.RunConfig(
  coordinator="127.0.0.1:{free_port()}", num_processes=2, process_id=0))
"""
  process = start(code=code)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 2, errors
  assert "not all processes of the run connected" in errors


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ([], "several processes need one --out"),
    (["--out=RUN", "--checkpoint-every=10min"], "the clocks of several differ"),
  ],
)
def test_what_several_processes_cannot_have(
  tmp_path, monkeypatch, capsys, options, message
):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  options = [option.replace("RUN", str(tmp_path / "run")) for option in options]
  assert exit_code(qm9.main, options) == 2
  assert message in " ".join(capsys.readouterr().err.split())
