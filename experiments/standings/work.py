"""A worker of the league: plays cells that nobody has played yet, until none is left.

    python -m experiments.standings.work OUT

The workers of a command share its folder; each claims a cell by a lock that ends with
its process.
"""

import argparse
import sys
import traceback
from pathlib import Path

import filelock
import jax

from igb_jax.training.run_folder import read_object

from .cells import play, read, write
from .plan import cells_of


def main() -> None:
  """Plays the cells of the folder that the command line names."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("out", type=Path)
  out = parser.parse_args().out
  settings = read_object(out / "league.json")["settings"]
  locks = out / "locks"
  locks.mkdir(exist_ok=True)
  for cell in cells_of(settings["problems"], settings["methods"]):
    path = cell.path(out)
    error = cell.error_path(out)
    lock = filelock.FileLock(locks / f"{cell.problem}-{path.stem}.lock")
    try:
      with lock.acquire(blocking=False):
        if read(cell, out) is not None or error.exists():
          continue
        print(f"{cell.method} on {cell.problem}", flush=True)
        try:
          content = play(cell, settings["seeds"], settings["validation_seeds"])
        except Exception as cause:  # of one cell; the others go on
          traceback.print_exc(file=sys.stdout)
          path.parent.mkdir(parents=True, exist_ok=True)
          error.write_text(f"{type(cause).__name__}: {cause}\n")
        else:
          write(cell, out, content)
        jax.clear_caches()
    except filelock.Timeout:
      continue  # another worker is at it


if __name__ == "__main__":
  main()
