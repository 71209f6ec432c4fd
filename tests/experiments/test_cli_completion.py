"""The completion scripts that the command `igb-jax` writes for shells."""

import re
import subprocess

import pytest

from experiments import cli
from tests.experiments.running import exit_code, one_line


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
