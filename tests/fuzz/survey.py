"""Injects faults into the files of a reader, and counts what it makes of them.

    python -m tests.fuzz.survey [--cases=1000] [READER ...]

prints the table of `docs/reliability.md`. A reader is a module `tests/fuzz/test_*.py`
that has a `READER`. Cases run in a process of their own with limited memory and time,
so that a crash or a hang is seen, belongs to a case, and ends nothing else.
"""

import argparse
import collections
import dataclasses
import faulthandler
import importlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fuzz.faults import FAULTS, Fault

READERS = ("qm9_csv", "npy", "png", "jpeg", "mat", "json", "config", "checkpoint")

SECONDS = 20
"""After so long a case is a hang."""

MEMORY = 1 << 30
"""Bytes that a worker may have besides what it has when it starts."""

GOOD = {
  "refused": "an error of a documented type that names the file",
  "unharmed": "the data are as before",
  "changed": "other data, all of them in their ranges",
}
BAD = {
  "unnamed": "an error of a documented type that does not name the file",
  "unexpected": "another error",
  "invalid": "data that are not in their ranges",
  "memory": "more memory than is allowed",
  "crash": "the end of the process",
  "hang": "no end",
}


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader and a small valid source for it.

  Attributes:
    build: writes the source into a folder.
    read: reads and checks all of it, and returns a dict of arrays.
    check: raises AssertionError if what was read is not what the reader promises.
    errors: documented types.
    named: what an error must hold, of the path of a damaged file within the folder.
    attacks: faults that are particular to the format.
    only: name pattern of the files to damage.
  """

  build: Callable[[Path], None]
  read: Callable[[Path], Mapping[str, np.ndarray]]
  check: Callable[[Mapping[str, np.ndarray]], None]
  errors: tuple[type[Exception], ...] = (ValueError, OSError)
  named: Callable[[Path], str] = lambda path: path.as_posix()
  attacks: tuple[Fault, ...] = ()
  only: str = "*"


class Survey(NamedTuple):
  """What came of the cases.

  Attributes:
    counts: outcome -> number of cases.
    bad: a line for each case whose outcome is bad.
  """

  counts: collections.Counter[str]
  bad: list[str]


def survey(name: str, cases: int) -> Survey:
  """Runs the cases 0 to `cases` - 1 of a reader."""
  done: list[dict[str, str]] = []
  while len(done) < cases:
    command = [sys.executable, "-m", "tests.fuzz.survey", "--worker", name]
    result = subprocess.run(
      [*command, str(len(done)), str(cases)],
      cwd=Path(__file__).parents[2],
      capture_output=True,
      text=True,
    )
    done += [json.loads(line) for line in result.stdout.splitlines()]
    if len(done) < cases:
      hangs = "Timeout (" in result.stderr
      if not hangs and result.returncode >= 0:
        raise RuntimeError(f"the worker failed:\n{result.stderr}")
      done.append({"outcome": "hang" if hangs else "crash", "error": result.stderr})
  return Survey(
    collections.Counter(case["outcome"] for case in done),
    [f"case {i}: {case}" for i, case in enumerate(done) if case["outcome"] in BAD],
  )


def assert_survives(name: str, cases: int) -> None:
  """Asserts that every case was refused by the file's name or gave valid data."""
  counts, bad = survey(name, cases)
  assert not bad, "\n".join(bad)
  assert counts["refused"] > cases / 5, counts


def work(name: str, first: int, stop: int) -> None:
  """Runs cases and prints a line of JSON for each that ended."""
  reader: Reader = importlib.import_module(f"tests.fuzz.test_{name}").READER
  warnings.simplefilter("error", RuntimeWarning)  # numbers that overflow
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    reader.build(folder)
    files = sorted(path for path in folder.rglob(reader.only) if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    expected = reader.read(folder)
    reader.check(expected)
    _limit_memory()
    for case in range(first, stop):
      rng = np.random.default_rng([zlib.crc32(name.encode()), case])
      fault, damaged = _damage(reader, contents, rng)
      for path, content in damaged.items():
        path.write_bytes(content)
      faulthandler.dump_traceback_later(SECONDS, exit=True)
      names = [reader.named(path.relative_to(folder)) for path in damaged]
      outcome, error = _outcome(reader, folder, expected, names)
      faulthandler.cancel_dump_traceback_later()
      line = {"outcome": outcome, "fault": fault, "files": names, "error": error}
      print(json.dumps(line), flush=True)
      for path in damaged:
        path.write_bytes(contents[path])


def _limit_memory() -> None:
  pages = int(Path("/proc/self/statm").read_text().split()[0])
  limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _damage(
  reader: Reader, contents: Mapping[Path, bytes], rng: np.random.Generator
) -> tuple[str, dict[Path, bytes]]:
  """The name of a fault, and what it makes of which files."""
  faults = [*FAULTS.values(), *reader.attacks]
  files = list(contents)
  kind = int(rng.integers(len(faults) + (len(files) > 1)))
  if kind == len(faults):
    first, second = (files[i] for i in rng.choice(len(files), 2, replace=False))
    return "files_swapped", {first: contents[second], second: contents[first]}
  path = files[rng.integers(len(files))]
  return faults[kind].__name__, {path: faults[kind](contents[path], rng)}


def _outcome(
  reader: Reader, folder: Path, expected: Mapping[str, np.ndarray], names: list[str]
) -> tuple[str, str]:
  try:
    found = reader.read(folder)
    reader.check(found)
  except AssertionError as error:
    return "invalid", repr(error)
  except Exception as error:
    text = f"{type(error).__name__}: {error}"
    if any(isinstance(cause, MemoryError) for cause in _causes(error)):
      return "memory", text
    if not isinstance(error, reader.errors):
      return "unexpected", text
    named = any(name in str(error) for name in names)
    return "refused" if named else "unnamed", text
  same = found.keys() == expected.keys() and all(
    np.array_equal(found[key], expected[key]) for key in expected
  )
  return "unharmed" if same else "changed", ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def main() -> None:
  """Prints a line of the table for each reader."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("readers", nargs="*", default=READERS)
  parser.add_argument("--cases", type=int, default=1000)
  arguments = parser.parse_args()
  outcomes = [*GOOD, *BAD]
  print("| reader | cases |", " | ".join(outcomes), "|")
  print("|---" * (2 + len(outcomes)) + "|")
  for name in arguments.readers:
    counts, bad = survey(name, arguments.cases)
    print(
      f"| {name} | {sum(counts.values())} |",
      " | ".join(str(counts[outcome]) for outcome in outcomes),
      "|",
      flush=True,
    )
    for line in itertools.islice(bad, 20):
      print(line, file=sys.stderr)


if __name__ == "__main__":
  if "--worker" in sys.argv:
    work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
  else:
    main()
