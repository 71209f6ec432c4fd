"""A task file: Python code of the user's that defines `make_task()`."""

import contextlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from igb_jax.training.array_task import ArrayTask


def load_task(path: Path) -> ArrayTask:
  """Runs a file that defines `make_task()`, and calls that.

  While it runs, modules beside the file can be imported, as in a script, and by
  relative imports if it is in a package.

  Raises:
    FileNotFoundError: there is no such file.
    TypeError: `make_task` did not return an `ArrayTask`.
    ValueError: it is not a Python file, has no `make_task`, or raised an error itself,
      whose line is in the message.
  """
  path = path.expanduser().resolve()
  if not path.is_file():
    raise FileNotFoundError(f"there is no file {path}.")
  if path.suffix != ".py":
    raise ValueError(f"{path} is not a Python file: its name must end in .py.")
  root, package = _package_of(path)
  # the whole path, so that it is no other module's name
  name = ".".join([*package, "task" + re.sub(r"\W", "_", str(path.with_suffix("")))])
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # where dataclasses, which Flax modules are, look it up
  with _importable(path.parent, root):
    with _naming(path):
      spec.loader.exec_module(module)
    make_task = getattr(module, "make_task", None)
    if not callable(make_task):
      raise ValueError(f"{path} defines no function make_task() -> ArrayTask.")
    with _naming(path):
      task = make_task()
  if not isinstance(task, ArrayTask):
    raise TypeError(
      f"{path}: make_task() must return an ArrayTask, got {type(task).__name__}."
    )
  return task


def _package_of(path: Path) -> tuple[Path, list[str]]:
  """The folder that holds a file's outermost package, and its packages from there."""
  folder, names = path.parent, []
  while (folder / "__init__.py").is_file() and folder.name.isidentifier():
    names.insert(0, folder.name)
    folder = folder.parent
  return folder, names


@contextlib.contextmanager
def _importable(*folders: Path) -> Iterator[None]:
  """Makes the modules in folders importable for a while."""
  added = [str(folder) for folder in folders]
  sys.path[:0] = added
  try:
    yield
  finally:
    for folder in added:
      sys.path.remove(folder)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Names the file, and the line in it, of whatever is raised."""
  try:
    yield
  except Exception as error:
    line = ""
    cause: BaseException | None = error
    while cause is not None:  # the innermost cause knows best
      for frame, number in traceback.walk_tb(cause.__traceback__):
        if frame.f_code.co_filename == str(path):
          line = f", line {number}"
      cause = cause.__cause__
    message = f"{path}{line}: {type(error).__name__}: {error}"
    raise ValueError(message) from error
