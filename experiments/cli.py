"""The subcommands of `igb-jax`, beside `python -m experiments.qm9` and the others."""

import contextlib
import dataclasses
import difflib
import importlib
import io
import itertools
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import subcommand

from igb_jax.balancers.methods import ALIASES, METHODS
from igb_jax.data.errors import PreparationError
from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED

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
script for the shell; --tyro-write-completion bash FILE writes it to a file in a folder
that is there, such as ~/.local/share/bash-completion/completions/igb-jax."""


@dataclasses.dataclass(frozen=True)
class PrepareQM9:
  """Prepares the molecules of QM9, once, and says where they are."""

  data_dir: Path | None = None
  """Folder of the prepared data; by default $IGB_JAX_DATA, else the platform's cache
  folder."""
  source: Literal["qm9pack", "tfds"] = "qm9pack"
  """Where the molecules come from: the package qm9pack, or the TFDS catalogue's qm9
  for those who have it."""
  molecules: int | None = None
  """Take only the first molecules of the source; None for all 130,831."""

  def run(self) -> None:
    """Prepares them, or finds them prepared."""
    from igb_jax.data import qm9

    data = qm9.load(self.data_dir, self.source, limit=self.molecules)
    folder = qm9.cache_folder(self.data_dir, self.source, limit=self.molecules)
    _tell(f"{len(data)} molecules of QM9 from {self.source} are in {folder}")


@dataclasses.dataclass(frozen=True)
class PrepareNYUv2:
  """Prepares the scenes of NYUv2, once, and says where they are."""

  data_dir: Path
  """NYUv2: a folder of npy files, a folder of images, or nyu_depth_v2_labeled.mat."""
  cache_dir: Path | None = None
  """Folder of the prepared data; by default $IGB_JAX_DATA, else the platform's cache
  folder."""
  limit: int | None = None
  """Take only the first scenes of each part; None for all."""

  def run(self) -> None:
    """Prepares them, or finds them prepared."""
    from igb_jax.data import nyuv2

    data = nyuv2.load(self.data_dir, self.cache_dir, limit=self.limit)
    _tell(f"{len(data)} scenes ({data.description}) are in {data.folder}")


@dataclasses.dataclass(frozen=True)
class ListBalancers:
  """Lists the balancers: name, kind, constructor, paper, and the cost of a step."""

  def run(self) -> None:
    """Prints the table."""
    Console().print(balancer_table())
    _tell(
      "cost: forward + backward passes of a step, with K tasks; heads is one, and one\n"
      "per task through the heads alone. A loss and a gradient balancer combine, as\n"
      "in igbv1+nashmtl, at the cost of the gradient balancer."
    )


def balancer_table() -> Table:
  """All balancers that `igb_jax.balancers.create` knows, a row each."""
  table = Table(box=box.SIMPLE_HEAD)
  for heading in ("name", "kind", "constructor", "paper", "cost"):
    table.add_column(heading, no_wrap=heading != "paper")
  for name, method in METHODS.items():
    also = [alias for alias, meant in ALIASES.items() if meant == name]
    table.add_row(
      ", ".join([name, *also]),
      method.kind,
      method.constructor_name,
      method.paper,
      f"{method.traits.forward_passes} + {method.traits.backward_passes}",
    )
  return table


def main(arguments: Sequence[str], program: str = "igb-jax") -> None:
  """Runs a subcommand.

  Args:
    arguments: those of the command line, without the program's name.
    program: what was started, as a command line has it.

  Raises:
    SystemExit: after a run or a comparison; where the command line or the data are
      wrong, or a file cannot be written (2); after Ctrl-C (130); and where memory is
      too little (1).
    ModuleNotFoundError: a package is not installed, which `igb_jax.__main__` tells.
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
      print(_completion_script(shell, program))
      sys.exit(0)
    case ["--tyro-write-completion", "bash" | "zsh" as shell, path]:
      script = _completion_script(shell, program)
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
      _run(_parse(words, program), errors)


def _run(command: PrepareQM9 | PrepareNYUv2 | ListBalancers, errors: Console) -> None:
  try:
    command.run()
  except (ValueError, OSError) as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_BAD_INPUT)
  except PreparationError as error:
    say(errors, f"error: {error}")
    sys.exit(EXIT_FAILED)
  except MemoryError:
    say(errors, "error: too little memory to prepare the data.")
    sys.exit(EXIT_FAILED)
  except KeyboardInterrupt:
    sys.exit(EXIT_INTERRUPTED)


def _completion_script(shell: str, program: str) -> str:
  """The script that tyro makes, without the line breaks of help texts.

  bash takes every line of them for a word that could follow.
  """
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    try:
      _parse(["--tyro-print-completion", shell], program)
    except SystemExit as end:
      if end.code:
        raise
  return re.sub(
    r"(?m)^COMPLETION_SPEC = .*$",
    lambda spec: spec[0].replace(r"\n", " "),
    printed.getvalue(),
  )


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


def _parse(
  arguments: Sequence[str], program: str
) -> PrepareQM9 | PrepareNYUv2 | ListBalancers:
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
    dataset: Annotated[PrepareQM9, subcommand("qm9")]
    | Annotated[PrepareNYUv2, subcommand("nyuv2")],
  ):
    """Prepares the data of an experiment ahead of its first run."""
    return dataset

  command = tyro.extras.subcommand_cli_from_dict(
    {
      "train": train,
      "compare": compare.Config,
      "prepare": prepare,
      "balancers": ListBalancers,
    },
    prog=program,
    description=_DESCRIPTION,
    args=list(arguments),
    config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
  )
  assert isinstance(command, PrepareQM9 | PrepareNYUv2 | ListBalancers)
  return command


def _tell(line: str) -> None:
  say(Console(), line)
