"""CONTRIBUTING's recipe: a file and a line make a method that everything knows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("igb_jax", "experiments", "tests", "conftest.py", "pyproject.toml")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
  """A copy of the project with one more method, which is MGDA by another name."""
  tree = tmp_path_factory.mktemp("tree")
  for name in COPIED:
    if (ROOT / name).is_dir():
      ignored = shutil.ignore_patterns("__pycache__")
      shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    else:
      shutil.copy(ROOT / name, tree / name)
  balancers = tree / "igb_jax" / "balancers"
  text = (balancers / "gradient" / "mgda.py").read_text().replace("mgda", "probe")
  (balancers / "gradient" / "probe.py").write_text(text)
  with (balancers / "__init__.py").open("a") as file:
    file.write("from igb_jax.balancers.gradient.probe import probe as probe\n")
  return tree


def run(tree: Path, *arguments: str) -> str:
  """What Python prints with the tree in the place of the installed package."""
  result = subprocess.run(
    [sys.executable, *arguments],
    cwd=tree,
    env=os.environ | {"PYTHONPATH": str(tree)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
  return result.stdout


def test_create_knows_it(tree):
  code = (
    "from igb_jax import balancers\n"
    "print(balancers.__file__)\n"
    "print(type(balancers.create('probe', num_tasks=3).gradient).__name__)\n"
    "print(balancers.names()['probe'])\n"
  )
  where, made, kind = run(tree, "-c", code).splitlines()
  assert Path(where).is_relative_to(tree)
  assert (made, kind) == ("GradientBalancer", "gradient")


def test_the_command_lists_it(tree):
  assert re.search(
    r"^ *probe +gradient +probe ", run(tree, "-m", "igb_jax", "balancers"), re.M
  )


def test_the_contract_tests_take_it(tree):
  shown = run(
    tree,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-k",
    "probe",
    "tests/balancers",
  )
  passed = re.search(r"(\d+) passed", shown)
  assert passed
  assert int(passed[1]) >= 20
