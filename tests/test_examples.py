"""Every example runs, as a user would run it."""

import runpy
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def test_custom_pipeline_learns_and_solves_exactly(capsys):
  names = runpy.run_path(str(ROOT / "examples" / "custom_pipeline.py"))
  shown = capsys.readouterr().out.splitlines()
  assert len(shown) == 4
  state = names["opt_state"][0]
  assert state.residual < 1e-5
  assert names["loss_state"].step == 301
  assert (names["loss_state"].weights != 1).all()
  first = np.fromstring(shown[0].split("[")[1].split("]")[0], sep=" ")
  assert (np.asarray(names["losses"]) < 0.5 * first).all()


def test_the_readme_shows_the_example():
  code = (ROOT / "examples" / "custom_pipeline.py").read_text()
  assert code in (ROOT / "README.md").read_text()
