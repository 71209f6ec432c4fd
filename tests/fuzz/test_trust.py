"""What the package never does with what it reads: run it, or write where it says."""

import re
from pathlib import Path

import pytest

import experiments
import igb_jax

FOLDERS = [Path(package.__file__ or "").parent for package in (igb_jax, experiments)]

NEVER = {
  "arrays of objects, which are pickles": r"allow_pickle\s*=\s*True",
  "pickles": r"\b(pickle|dill|joblib|marshal|shelve)\.|read_pickle",
  "code of a file": r"(?<![.\w])(eval|exec|compile)\(|safe_eval|__import__",
  "YAML of any type": r"yaml\.(unsafe_|full_)?load\(",
  "archives unpacked where their names say": r"extractall|unpack_archive|\.extract\(",
  "a shell": r"shell\s*=\s*True|os\.(system|popen)",
  "images of any format": r"Image\.open\((?![^)]*formats=)",
}


@pytest.mark.parametrize("what", NEVER)
def test_never(what):
  paths = [path for folder in FOLDERS for path in folder.rglob("*.py")]
  assert len(paths) > 50
  found = [
    f"{path}:{number}: {line.strip()}"
    for path in paths
    for number, line in enumerate(path.read_text().splitlines(), start=1)
    if re.search(NEVER[what], line)
  ]
  assert not found, "\n".join(found)
