"""The command `igb-jax`: its help, its words, and the balancers it lists."""

import inspect
import re

import pytest

from experiments import cli, qm9
from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from igb_jax.data.errors import PreparationError
from igb_jax.training import main as training_main
from igb_jax.training import run
from tests.experiments.running import exit_code, one_line


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
def test_help_of_an_experiment_is_of_the_command_that_was_given(
  name, capsys, monkeypatch
):
  monkeypatch.setenv("COLUMNS", "300")
  assert exit_code(cli.main, ["train", name, "--help"]) == 0
  shown = capsys.readouterr().out
  assert f"usage: igb-jax train {name} " in shown
  # two lines in the source
  assert "a folder in runs/ named after data set, balancer, seed and time." in shown


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


def test_a_run_says_how_to_go_on_in_the_words_it_was_started_with(tmp_path):
  config = qm9.parse_config(["--out=my runs/a"])
  command = training_main.resume_command(
    "igb-jax train qm9", ["--out=my runs/a"], config, tmp_path
  )
  assert command == "igb-jax train qm9 '--out=my runs/a' --resume"
  assert qm9.PROGRAM == "python -m experiments.qm9"


def test_an_error_that_can_be_caught_is_in_a_module_that_can_be_named():
  errors = [Exception]
  for error in errors:  # which grows
    errors += error.__subclasses__()
  ours = [error for error in errors if error.__module__.startswith("igb_jax.")]
  assert PreparationError in ours
  for error in ours:
    assert error.__name__.startswith("_") or "._" not in error.__module__
