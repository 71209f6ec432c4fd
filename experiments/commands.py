"""The commands of `igb-jax` that train nothing: prepare data, list balancers."""

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from igb_jax.balancers.methods import ALIASES, METHODS
from igb_jax.data.errors import PreparationError
from igb_jax.training.config import helpful
from igb_jax.training.results import say
from igb_jax.training.run import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED


@helpful
@dataclasses.dataclass(frozen=True)
class PrepareQM9:
  """Prepares the molecules of QM9 if they are not, and says where they are."""

  data_dir: Path | None = None
  """Folder of the prepared data; by default $IGB_JAX_DATA or, if that is not set, the
  platform's cache folder."""
  source: Literal["qm9pack", "tfds"] = "qm9pack"
  """Where the molecules come from: the package qm9pack, or TFDS's qm9 if you have it
  prepared."""
  molecules: int | None = None
  """Take only the first molecules of the source; None for all 130,831."""

  def run(self) -> None:
    """Prepares them, or finds them prepared."""
    from igb_jax.data import qm9

    data = qm9.load(self.data_dir, self.source, limit=self.molecules)
    folder = qm9.cache_folder(self.data_dir, self.source, limit=self.molecules)
    _tell(f"{len(data)} molecules of QM9 from {self.source} are in {folder}")


@helpful
@dataclasses.dataclass(frozen=True)
class PrepareNYUv2:
  """Prepares the scenes of NYUv2 if they are not, and says where they are."""

  data_dir: Path
  """NYUv2: a folder of npy files, a folder of images, or nyu_depth_v2_labeled.mat."""
  cache_dir: Path | None = None
  """Folder of the prepared data; by default $IGB_JAX_DATA or, if that is not set, the
  platform's cache folder."""
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


def _tell(line: str) -> None:
  say(Console(), line)


Command = PrepareQM9 | PrepareNYUv2 | ListBalancers


def run_command(command: Command, errors: Console) -> None:
  """Runs one of them; SystemExit with a message where it fails."""
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


def completion_script(parse: Callable[[Sequence[str]], object], shell: str) -> str:
  """The script that tyro makes.

  Args:
    parse: the parser of all subcommands.
    shell: bash or zsh.
  """
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
    parse(["--tyro-print-completion", shell])
  return printed.getvalue()
