"""Every Python block of the README runs, in order, each from a clean start."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_blocks():
  assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block, capsys):
  exec(compile(block, "README.md", "exec"), {})
  assert capsys.readouterr().out
