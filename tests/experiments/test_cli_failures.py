"""What the command `igb-jax` tells of too little memory and of missing packages."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import jax
import pytest

from experiments import cli, custom
from igb_jax import __main__
from igb_jax.extras import PACKAGES
from igb_jax.training import main as training_main
from igb_jax.training.experiment import Experiment
from tests.experiments.custom_task import TASK
from tests.experiments.custom_task import small as small_task
from tests.experiments.running import exit_code, read_metrics


@pytest.fixture
def task(tmp_path) -> Path:
  path = tmp_path / "task.py"
  path.write_text(TASK)
  return path


class Hungry(Experiment):
  """An experiment that asks for too much memory in its third epoch."""

  error: Exception = MemoryError()

  def epoch_batches(self, epoch, start=0):
    if epoch == 2:
      raise self.error
    return super().epoch_batches(epoch, start)


@pytest.mark.parametrize(
  ("error", "told"),
  [
    pytest.param(
      MemoryError(),
      "too little memory. Lower --batch-size (now 16).",
      marks=pytest.mark.slow,
    ),
    (
      jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no 9 bytes\nAllocations:\n  a"),
      "too little memory (RESOURCE_EXHAUSTED: no 9 bytes). Lower --batch-size (now 16)",
    ),
  ],
)
def test_too_little_memory_ends_a_run_that_can_go_on(
  error, told, task, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(training_main, "Experiment", Hungry)
  monkeypatch.setattr(Hungry, "error", error)
  out = tmp_path / "run"
  arguments = ["train", "custom", *small_task(task, out, "--balancer=mgda")]
  assert exit_code(cli.main, arguments) == 1
  shown = capsys.readouterr().err
  assert f"error: {told}" in shown
  assert "--balancer=mgda holds the gradients of all tasks at once" in shown
  again = f"memory: igb-jax train custom --task={task} --out={out} "
  assert again in shown
  assert shown.endswith("--balancer=mgda --resume\n")
  assert "Traceback" not in shown
  assert len(read_metrics(out)) == 2
  monkeypatch.undo()
  assert exit_code(cli.main, [*arguments, "--resume"]) == 0
  assert "resuming after epoch 2." in capsys.readouterr().out
  assert len(read_metrics(out)) == 4


def test_too_little_memory_before_the_first_step(task, monkeypatch, capsys):
  def make(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  monkeypatch.setattr(training_main, "Experiment", make)
  given = ["train", "custom", f"--task={task}", "--seeds", "0", "1"]
  assert exit_code(cli.main, given) == 1
  shown = capsys.readouterr().err
  assert "Lower --batch-size (now 128). Train fewer than 2 --seeds at once." in shown
  assert "gradients of all tasks" not in shown


def test_another_error_of_a_computation_stays_one(task, monkeypatch):
  def make(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: a mistake")

  monkeypatch.setattr(training_main, "Experiment", make)
  with pytest.raises(jax.errors.JaxRuntimeError, match="a mistake"):
    cli.main(["train", "custom", f"--task={task}"])


def test_a_missing_package_is_told_with_the_command_that_installs_it():
  code = """
import sys
import sysconfig
from igb_jax.__main__ import main
for module, *words in [
  ("tyro", "balancers"),
  ("orbax.checkpoint", "train", "qm9"),
  ("rdkit", "prepare", "qm9"),
  ("jraph", "train", "qm9"),
  ("jinja2", "compare"),
]:
  before = sys.modules.pop(module, None)
  sys.modules[module] = None
  try:
    main(words)
  except SystemExit as end:
    print(module, end.code)
  if module == "tyro":
    try:
      import experiments.qm9
    except ModuleNotFoundError as error:
      print(error)
    sys.argv = ["-m"]
    try:
      import experiments.qm9
    except SystemExit as end:
      print("python -m", end.code)
  if before is None:
    del sys.modules[module]
  else:
    sys.modules[module] = before
"""
  shown = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=Path(__file__).parents[2],
  )
  missing = [
    f"{name} is not installed, which the experiments need: pip install "
    "'igb-jax[experiments]', or pip install -e '.[experiments]' in a checkout."
    for name in ("tyro", "tyro", "orbax", "rdkit", "jraph", "jinja2")
  ]
  assert shown.stderr.splitlines() == [f"error: {line}" for line in missing]
  assert shown.stdout.splitlines() == [
    *("tyro 2", missing[0], "python -m 2"),
    *("orbax.checkpoint 2", "rdkit 2", "jraph 2", "jinja2 2"),
  ]


@pytest.mark.parametrize("name", ["scipy.optimize", "scipi", "igb_jax.nowhere"])
def test_only_a_package_of_the_extra_is_told_as_missing(
  name, task, monkeypatch, capsys
):
  monkeypatch.setattr(custom, "make_problem", lambda *_: import_module(name))
  monkeypatch.setitem(sys.modules, name, None)
  given = ["train", "custom", f"--task={task}"]
  if name == "scipy.optimize":
    assert exit_code(cli.main, given) == 2
    assert "error: scipy is not installed, which" in capsys.readouterr().err
  else:
    with pytest.raises(ModuleNotFoundError, match=name):
      cli.main(given)


def test_a_checkout_that_is_not_installed_is_told(tmp_path):
  (tmp_path / "igb_jax").symlink_to(Path(__main__.__file__).parent)
  packages = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
  shown = subprocess.run(
    [sys.executable, "-S", "-m", "igb_jax", "balancers"],  # -S: nor by an editable one
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": packages},
  )
  assert shown.returncode == 2
  assert shown.stderr == (
    "error: this checkout is not installed: pip install -e '.[experiments]' in it.\n"
  )


def test_a_mistake_of_ours_is_not_told_as_a_missing_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "igb_jax.experiments.cli", None)
  with pytest.raises(ModuleNotFoundError, match=r"igb_jax\.experiments\.cli"):
    __main__.main(["balancers"])


def test_the_packages_that_are_told_are_those_of_the_extra():
  required = importlib.metadata.requires("igb-jax")
  assert required
  ours = {
    re.split("[<>=]", line)[0] for line in required if 'extra == "experiments"' in line
  }
  owners = importlib.metadata.packages_distributions()
  told = {
    name: {each.lower().replace("_", "-") for each in owners[name]} for name in PACKAGES
  }
  assert all(ours & found for found in told.values())
  assert ours <= set().union(*told.values())
