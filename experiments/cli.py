"""The subcommands of `igb-jax`, beside `python -m experiments.qm9` and the others."""

import difflib
import importlib
import itertools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import subcommand

from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT

from . import commands

# each with the data sets that may follow it
COMMANDS: dict[str, tuple[str, ...]] = {
  "train": ("qm9", "nyuv2", "custom"),
  "compare": (),
  "prepare": ("qm9", "nyuv2"),
  "balancers": (),
}
_COMPLETION = {
  "--tyro-print-completion": "bash or zsh",
  "--tyro-write-completion": "bash or zsh, and a file",
}
_DESCRIPTION = """Task balancing for multi-task learning.

Exit codes: 0 complete, 1 failed, 2 wrong options or data or a missing package, 130
interrupted (Ctrl-C), 143 terminated (SIGTERM).

--version prints the version. --tyro-print-completion bash (or zsh) prints a completion
script for the shell; --tyro-write-completion bash FILE writes it to a file in an
existing folder, such as ~/.local/share/bash-completion/completions/igb-jax."""


def main(arguments: Sequence[str], program: str = "igb-jax") -> None:
  """Runs a subcommand.

  Args:
    arguments: those of the command line, without the program's name.
    program: what was started, as a command line has it.

  Raises:
    SystemExit: after a run or a comparison; where the command line or the data are
      wrong, or a file cannot be written (2); after Ctrl-C (130); and where memory is
      too little (1).
    ModuleNotFoundError: a package is not installed, which `igb_jax.__main__` reports.
  """
  errors = Console(stderr=True)
  # a completion script is of all subcommands, after whichever it is asked for
  words = list(itertools.dropwhile(lambda word: word not in _COMPLETION, arguments))
  words = words or list(arguments)
  wrong = _wrong_word(words)
  if wrong is not None:
    say(errors, f"error: {wrong}")
    sys.exit(EXIT_BAD_INPUT)
  match words:
    # one experiment does not wait for the imports of the others
    case ["train", dataset, *others] if dataset in COMMANDS["train"]:
      experiment = importlib.import_module(f"{__package__}.{dataset}")
      experiment.main(others, f"{program} train {dataset}")
    case ["compare", *others]:
      compare = importlib.import_module(f"{__package__}.compare")
      compare.main(others, f"{program} compare")
    case ["--tyro-print-completion", "bash" | "zsh" as shell]:
      print(commands.completion_script(lambda given: _parse(given, program), shell))
      sys.exit(0)
    case ["--tyro-write-completion", "bash" | "zsh" as shell, path]:
      script = commands.completion_script(lambda given: _parse(given, program), shell)
      try:
        Path(path).write_text(script)
      except OSError as error:
        say(
          errors,
          f"error: the completion script could not be written: {error}. Make its "
          "folder, or name another file.",
        )
        sys.exit(EXIT_BAD_INPUT)
      sys.exit(0)
    case [option, *others] if option in _COMPLETION:
      expected = _COMPLETION[option]
      say(errors, f"error: {option} wants {expected}, got {shlex.join(others)!r}.")
      sys.exit(EXIT_BAD_INPUT)
    case _:
      commands.run_command(_parse(words, program), errors)


def _wrong_word(arguments: Sequence[str]) -> str | None:
  """What is wrong with the first words, with the nearest word that is known.

  Example:
    >>> _wrong_word(["train", "qm8"])
    "unknown data set 'qm8' (did you mean 'qm9'?); known: qm9, nyuv2, custom."
  """
  known: Sequence[str] = tuple(COMMANDS)
  for word, what in zip(arguments, ("command", "data set"), strict=False):
    if word.startswith("-") or not known:
      return None
    if word not in known:
      near = difflib.get_close_matches(word.lower(), known, n=1)
      hint = f" (did you mean {near[0]!r}?)" if near else ""
      return f"unknown {what} {word!r}{hint}; known: {', '.join(known)}."
    known = COMMANDS.get(word, ())
  return None


def _parse(arguments: Sequence[str], program: str) -> commands.Command:
  """Reads a command line by a parser of all subcommands, for --help and completion.

  Those that train are here for these two alone: a preset decides their defaults.
  """
  from . import compare, custom, nyuv2, qm9

  def train(
    dataset: Annotated[qm9.Config, subcommand("qm9")]
    | Annotated[nyuv2.Config, subcommand("nyuv2")]
    | Annotated[custom.Config, subcommand("custom")],
  ):
    """Trains a network on several tasks, with a balancer."""
    return dataset

  def prepare(
    dataset: Annotated[commands.PrepareQM9, subcommand("qm9")]
    | Annotated[commands.PrepareNYUv2, subcommand("nyuv2")],
  ):
    """Prepares the data of an experiment ahead of its first run."""
    return dataset

  command = tyro.extras.subcommand_cli_from_dict(
    {
      "train": train,
      "compare": compare.Config,
      "prepare": prepare,
      "balancers": commands.ListBalancers,
    },
    prog=program,
    description=_DESCRIPTION,
    args=list(arguments),
    config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
  )
  assert isinstance(command, commands.Command)
  return command
