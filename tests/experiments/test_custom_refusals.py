"""A user's own task: its help, and which options and task files are refused."""

import re

import pytest

from experiments import custom
from tests.experiments.custom_task import small
from tests.experiments.custom_task import write_task as write_task
from tests.experiments.running import assert_help_explains_every_option, exit_code


def test_help_explains_every_option(capsys):
  assert_help_explains_every_option(custom, capsys)


@pytest.mark.parametrize(
  ("arguments", "named"), [([], "--task"), (["--epoch=3"], "--epoch")]
)
def test_what_is_missing_or_unknown_is_named(arguments, named, capsys):
  with pytest.raises(SystemExit) as caught:
    custom.parse_config(arguments)
  assert caught.value.code == 2
  assert named in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (
      ["--batch-size=71"],
      "--batch-size=71 is larger than the training split, .* 70 rows",
    ),
    (["--batch-size=0"], "--batch-size must be at least 1, got 0"),
    (["--epochs=0"], "--epochs must be at least 1, got 0"),
    (["--seed=-1"], "--seed must be at least 0, got -1"),
    (["--plateau-patience=-1"], "--plateau-patience must be at least 0"),
    (["--max-skips=0"], "--max-skips must be at least 1"),
    (["--learning-rate=nan"], "--learning-rate must be positive, got nan"),
    (["--min-learning-rate=1"], "--min-learning-rate must be positive and at most"),
    (["--plateau-factor=1"], "--plateau-factor must be between 0 and 1, got 1"),
    (["--devices=99"], "--devices asks for 99 devices"),
    (["--balancer=igbv9"], "unknown balancer 'igbv9'"),
    (["--balancer=stl"], "'stl' needs task"),
    (
      ["--balancer=stl", "--balancer-options", "task=width"],
      "'width' is not a number, truth value .* or task .height, side",
    ),
    (["--balancer-options", "absent=forget"], "absent must be 'leave_out' or 'remem"),
    (["--balancer-options", "epsilon=a b"], "'a b' is not a number, truth value"),
    (["--task=nowhere.py"], "there is no file .*nowhere.py"),
  ],
)
def test_wrong_options_are_refused_before_anything_is_written(
  options, message, write_task, tmp_path, capsys
):
  out = tmp_path / "run"
  assert exit_code(custom.main, small(write_task(), out, *options)) == 2
  assert re.search(message, capsys.readouterr().err)
  assert not out.exists()


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    (
      '("height", "side")',
      '("height", "height")',
      r"task\d.py, line \d+: ValueError: task_names must differ, got height",
    ),
    (
      "100 * right.mean()",
      "0 * right.mean()",
      "metric 'accuracy' of the untrained network is 0.0,.* give every metric a pos",
    ),
    (
      "100 * right.mean()",
      "-1 - right.mean()",
      "metric 'accuracy' of the untrained network is -1.* give every metric a positive",
    ),
    (
      '"shared": shared, "heads"',
      '"shared": shared, "trunk": shared, "heads"',
      r"nothing for \['trunk'\]",
    ),
  ],
)
def test_wrong_task_files_are_refused_before_anything_is_written(
  old, new, message, write_task, tmp_path, capsys
):
  out, task = tmp_path / "run", write_task((old, new))
  assert exit_code(custom.main, small(task, out, "--balancer=ew+mgda")) == 2
  shown = capsys.readouterr().err
  assert "error: " in shown
  assert re.search(message, shown.replace("\n", " "))
  assert not out.exists()
