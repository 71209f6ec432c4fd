"""The command `igb-jax`, or `python -m igb_jax`.

Its subcommands are part of the experiments and need their packages; where one is
missing, this says how to install it. Nothing else is imported before it is needed.
"""

import importlib
import sys
from collections.abc import Sequence

import igb_jax
from igb_jax.extras import EXIT_MISSING, IN_CHECKOUT, is_of_extra, missing_package

_EXPERIMENTS = "igb_jax.experiments"  # the folder experiments/, where it is installed


def main(arguments: Sequence[str] | None = None, program: str = "igb-jax") -> None:
  """Runs the command line, and exits unless the command has nothing to train.

  Args:
    arguments: without the program's name; None for those of this process.
    program: what was started, as a command line has it.

  Raises:
    SystemExit: with the code that `igb-jax --help` explains.
    ModuleNotFoundError: a module that is not of the extra `experiments` is missing.

  Example:
    >>> main(["--version"])  # doctest: +ELLIPSIS
    igb-jax ...
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  if list(arguments) == ["--version"]:
    print(f"igb-jax {igb_jax.__version__}")
    return
  try:
    cli = importlib.import_module(f"{_EXPERIMENTS}.cli")
    cli.main(arguments, program)
  except ModuleNotFoundError as error:
    if error.name == _EXPERIMENTS:
      missing = f"this checkout is not installed: {IN_CHECKOUT} in it."
    elif is_of_extra(error.name):
      missing = missing_package(error.name)
    else:
      raise
    print(f"error: {missing}", file=sys.stderr)
    sys.exit(EXIT_MISSING)


if __name__ == "__main__":
  main(program="python -m igb_jax")
