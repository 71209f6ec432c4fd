"""The command `igb-jax`: its words, its errors, what it hands to the experiments."""

import errno
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import jax
import pytest

from experiments import cli, custom, qm9
from igb_jax import __main__, balancers
from igb_jax.balancers.methods import METHODS
from igb_jax.data.errors import PreparationError
from igb_jax.extras import PACKAGES
from igb_jax.training import main as training_main
from igb_jax.training import run
from igb_jax.training.experiment import Experiment
from igb_jax.training.run_folder import RunFolder
from tests.experiments.running import exit_code, read_metrics
from tests.experiments.test_custom import TASK
from tests.experiments.test_custom import small as small_task
from tests.experiments.test_nyuv2 import write_images
from tests.experiments.test_qm9 import small as small_molecules
from tests.molecules import MOLECULES


@pytest.fixture
def task(tmp_path) -> Path:
  path = tmp_path / "task.py"
  path.write_text(TASK)
  return path


def one_line(text: str) -> str:
  """What a terminal's frames and line breaks hold."""
  return " ".join(text.replace("│", " ").split())


def test_help_names_the_commands_and_the_exit_codes(capsys):
  assert exit_code(cli.main, ["--help"]) == 0
  shown = one_line(capsys.readouterr().out)
  for command in cli.COMMANDS:
    assert f"• {command} " in shown
  codes = re.search(r"Exit codes: (.*?)\. --version prints", shown)
  assert codes is not None
  assert codes[1] == (
    "0 complete, 1 failed, 2 wrong options or data or a missing package, 130 "
    "interrupted (Ctrl-C), 143 terminated (SIGTERM)"
  )
  stated = [int(code) for code in re.findall(r"\d+", codes[1])]
  assert stated == [
    0, run.EXIT_FAILED, run.EXIT_BAD_INPUT, run.EXIT_INTERRUPTED, run.EXIT_TERMINATED
  ]  # fmt: skip


@pytest.mark.parametrize(
  ("command", "known"),
  [("train", ["qm9", "nyuv2", "custom"]), ("prepare", ["qm9", "nyuv2"])],
)
def test_help_of_a_command_names_its_data_sets(command, known, capsys):
  assert exit_code(cli.main, [command, "--help"]) == 0
  shown = capsys.readouterr().out
  assert f"igb-jax {command} [-h] {{{','.join(known)}}}" in shown


@pytest.mark.parametrize("name", ["qm9", "nyuv2", "custom"])
def test_help_of_an_experiment_is_of_the_command_that_was_given(name, capsys):
  assert exit_code(cli.main, ["train", name, "--help"]) == 0
  assert f"usage: igb-jax train {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["trian"], "unknown command 'trian' (did you mean 'train'?); known: train, com"),
    (["banalcers"], "unknown command 'banalcers' (did you mean 'balancers'?)"),
    (["xyz"], "unknown command 'xyz'; known: train, compare, prepare, balancers"),
    (["train", "qm8"], "unknown data set 'qm8' (did you mean 'qm9'?); known: qm9, ny"),
    (["prepare", "NYU2"], "unknown data set 'NYU2' (did you mean 'nyuv2'?)"),
    (["train"], "Expected one of {qm9, nyuv2, custom}"),
    ([], "Expected one of {train, compare, prepare, balancers}"),
    (["prepare", "nyuv2"], "--data-dir"),
    (["train", "nyuv2", "--balancer=igbv3"], "'igbv3' (did you mean 'igbv2'?)"),
    (["train", "qm9", "--epocs=3"], "Perhaps you meant: --epochs"),
    (["compare", "--dataset=qm8"], "invalid choice 'qm8'"),
    (["compare", "--dataset=qm9", "--balancers=nashmlt", "--dry-run"], "'nashmtl'?"),
  ],
)
def test_a_wrong_word_is_refused_with_the_nearest(words, message, capsys):
  assert exit_code(cli.main, words) == 2
  assert message in one_line(capsys.readouterr().err)


def test_lists_every_balancer_with_its_facts(capsys):
  cli.main(["balancers"])
  rows = capsys.readouterr().out.splitlines()
  for name, kind in balancers.names().items():
    method = METHODS[name]
    (row,) = [row.split() for row in rows if row.split()[:1] in ([name], [f"{name},"])]
    assert kind in row
    assert method.constructor_name in row
    assert callable(getattr(balancers, method.constructor_name))
    assert row[-1] == method.traits.backward_passes


@pytest.mark.parametrize("name", balancers.names())
def test_the_paper_of_a_balancer_is_that_of_its_module(name):
  method = METHODS[name]
  module = inspect.getmodule(getattr(balancers, method.constructor_name))
  assert module is not None
  text = " ".join((module.__doc__ or "").split())
  assert method.paper or name in {"ew", "stl"}
  for fact in filter(None, method.paper.split(", ")):
    assert fact in text


@pytest.mark.parametrize("words", [[], ["train", "qm9"]])
def test_prints_a_completion_script_that_a_shell_takes(words, capsys, tmp_path):
  with pytest.raises(SystemExit) as end:
    cli.main([*words, "--tyro-print-completion", "bash"])
  assert not end.value.code
  script = tmp_path / "completion"
  script.write_text(capsys.readouterr().out)
  code = f"source {script} && complete -p igb-jax"
  shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
  assert shown.returncode == 0, shown.stderr
  assert re.fullmatch(r"complete .*-F \S+ igb-jax\n", shown.stdout)
  for word in ("nyuv2", "--balancer", "--data-dir", "--dry-run"):
    assert word in script.read_text()


@pytest.mark.parametrize(
  ("words", "expected"),
  [
    ("train q", ["qm9"]),
    ("train qm9 --epo", ["--epochs"]),
    ("train qm9 --balancer-o", ["--balancer-options"]),  # with a help of two lines
    ("train nyuv2 --tensor", ["--tensorboard"]),
    ("compare --para", ["--parallel"]),
  ],
)
def test_bash_completes(words, expected, tmp_path):
  with pytest.raises(SystemExit):
    cli.main(["--tyro-write-completion", "bash", str(tmp_path / "script")])
  code = f"""
source {tmp_path / "script"}
COMP_WORDS=(igb-jax {words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p igb-jax | sed 's/.* -F \\(\\S*\\) .*/\\1/')
printf '%s\n' "${{COMPREPLY[@]}}"
"""
  shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
  assert shown.stdout.splitlines() == expected, shown.stderr


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--tyro-print-completion"], "completion wants bash or zsh, got ''."),
    (["--tyro-print-completion", "tcsh"], "wants bash or zsh, got 'tcsh'."),
    (["--tyro-write-completion", "bash"], "wants bash or zsh, and a file, got 'bash'."),
  ],
)
def test_a_wrong_call_for_completion_is_told(words, message, capsys):
  assert exit_code(cli.main, words) == 2
  assert message in one_line(capsys.readouterr().err)


def test_writes_a_completion_script(tmp_path):
  path = tmp_path / "_igb-jax"
  with pytest.raises(SystemExit) as end:
    cli.main(["--tyro-write-completion", "zsh", str(path)])
  assert not end.value.code
  assert path.read_text().startswith("#compdef igb-jax")


def test_a_completion_script_that_cannot_be_written_is_told(tmp_path, capsys):
  path = tmp_path / "nowhere" / "igb-jax"
  assert exit_code(cli.main, ["--tyro-write-completion", "bash", str(path)]) == 2
  shown = one_line(capsys.readouterr().err)
  assert "error: the completion script could not be written: " in shown
  assert f"No such file or directory: '{path}'. Make its folder, or name ano" in shown


def test_prepares_molecules_and_says_where(qm9_dir, capsys):
  cli.main(["prepare", "qm9", f"--data-dir={qm9_dir}", f"--molecules={MOLECULES}"])
  shown = capsys.readouterr().out.strip()
  where = f"{MOLECULES} molecules of QM9 from qm9pack are in "
  assert shown.startswith(where)
  folder = Path(shown.removeprefix(where))
  assert folder.is_relative_to(qm9_dir)
  assert any(folder.iterdir())


def test_prepares_scenes_and_says_where(tmp_path, capsys):
  write_images(tmp_path / "scenes")
  given = [f"--data-dir={tmp_path / 'scenes'}", f"--cache-dir={tmp_path / 'cache'}"]
  cli.main(["prepare", "nyuv2", *given])
  shown = capsys.readouterr().out.strip()
  assert shown.startswith("7 scenes (")
  folder = Path(shown.rpartition(" are in ")[2])
  assert folder.is_relative_to(tmp_path / "cache")
  assert any(folder.iterdir())


def test_a_wrong_data_folder_is_told_with_what_was_looked_for(tmp_path, capsys):
  (tmp_path / "notes.txt").write_text("no scenes")
  for command in ("prepare", "train"):
    given = [command, "nyuv2", f"--data-dir={tmp_path}"]
    assert exit_code(cli.main, given) == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path}: no NYUv2 data there (the folder has notes" in error
    assert "image|label|depth|normal/*.npy" in error
    assert "nyu_depth_v2_labeled.mat" in error
  given = ["prepare", "nyuv2", f"--data-dir={tmp_path / 'nowhere'}"]
  assert exit_code(cli.main, given) == 2
  assert "nowhere: there is no such file or folder" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(tmp_path, capsys):
  (tmp_path / "file").write_text("in the way")
  given = ["prepare", "qm9", f"--data-dir={tmp_path / 'file'}", "--molecules=5"]
  assert exit_code(cli.main, given) == 2
  assert "cannot write the QM9 cache" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), PreparationError("has died")])
def test_too_little_memory_to_prepare(error, monkeypatch, capsys):
  def load(*_, **__):
    raise error

  monkeypatch.setattr("igb_jax.data.qm9.load", load)
  assert exit_code(cli.main, ["prepare", "qm9"]) == 1
  assert re.search("error: (too little memory|has died)", capsys.readouterr().err)


def test_a_run_says_how_to_go_on_in_the_words_it_was_started_with(tmp_path):
  config = qm9.parse_config(["--out=my runs/a"])
  command = training_main.resume_command(
    "igb-jax train qm9", ["--out=my runs/a"], config, tmp_path
  )
  assert command == "igb-jax train qm9 '--out=my runs/a' --resume"
  assert qm9.PROGRAM == "python -m experiments.qm9"


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
    (MemoryError(), "too little memory. Lower --batch-size (now 16)."),
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
  assert "goes on after epoch 2 and 0 steps" in capsys.readouterr().out
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


def test_a_folder_in_a_file_is_refused_before_the_data_are_prepared(tmp_path, capsys):
  (tmp_path / "file").write_text("in the way")
  out = tmp_path / "file" / "run"
  assert exit_code(qm9.main, small_molecules(tmp_path / "data", out)) == 2
  shown = capsys.readouterr().err
  assert f"{out} cannot be a folder: {tmp_path / 'file'} is a file" in shown
  assert not (tmp_path / "data").exists()
  given = ["compare", "--dataset=rooms", f"--out={out}"]
  assert exit_code(cli.main, given) == 2
  assert f"{out} cannot be a folder" in capsys.readouterr().err


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_without_permission_is_refused_before_the_data_are_prepared(
  named, tmp_path, monkeypatch, capsys
):
  # root may write anywhere
  access = os.access
  monkeypatch.setattr(
    os, "access", lambda path, mode: Path(path) != tmp_path and access(path, mode)
  )
  monkeypatch.chdir(tmp_path)
  out = tmp_path / "new" / "run"
  given = small_molecules(tmp_path / "data", out)
  assert exit_code(qm9.main, given if named else given[:2] + given[3:]) == 2
  shown = capsys.readouterr().err
  assert f"{out if named else 'runs'} cannot be written: you have no permi" in shown
  assert f"in {tmp_path}; choose another --out" in shown
  assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
  def read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(Path, "mkdir", read_only)
  message = f"{tmp_path / 'run'} could not be written: Read-only file system"
  with pytest.raises(OSError, match=re.escape(message)):
    RunFolder(tmp_path / "run")


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


def test_an_error_that_can_be_caught_is_in_a_module_that_can_be_named():
  errors = [Exception]
  for error in errors:  # which grows
    errors += error.__subclasses__()
  ours = [error for error in errors if error.__module__.startswith("igb_jax.")]
  assert PreparationError in ours
  for error in ours:
    assert error.__name__.startswith("_") or "._" not in error.__module__


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
