"""Every example runs, as a user would run it."""

import runpy
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from tests.balancers.contract import FAMILIES, loss_traits
from tests.needed_options import needed_options

ROOT = Path(__file__).parents[1]


def solves_exactly(state):
  return (state.gramian.norms > 0).all() and state.residual < 1e-5


def test_custom_pipeline_learns_and_solves_exactly(capsys):
  names = runpy.run_path(str(ROOT / "examples" / "custom_pipeline.py"))
  assert len(capsys.readouterr().out.splitlines()) == 4
  state = names["state"]
  assert solves_exactly(state.gradient)
  assert state.loss.step == 301
  assert (state.loss.weights != 1).all()
  mean_alone = names["targets"].var(axis=0)
  assert (np.asarray(names["losses"]) < 0.5 * mean_alone).all()


def test_nnx_learns_species_sex_and_mass_of_penguins(capsys):
  names = runpy.run_path(str(ROOT / "examples" / "flax_nnx.py"))
  assert len(capsys.readouterr().out.splitlines()) == 4
  history = np.asarray(names["history"])
  assert (history[-4:].mean(axis=0) < 0.5 * history[:4].mean(axis=0)).all()
  state = names["state"].loss
  assert state.step == len(history)
  gaps = history[-1] / state.base_losses
  assert list(np.argsort(state.weights)) == list(np.argsort(gaps))
  np.testing.assert_allclose(state.weights.sum(), 3, 1e-5)
  assert solves_exactly(names["state"].gradient)
  assert names["accuracy"]["species"] > 0.9
  assert names["accuracy"]["sex"] > 0.75
  assert names["error"] < 450  # g; 630 if all had the mean mass


def test_equinox_learns_miles_and_wheels_of_cars(capsys):
  names = runpy.run_path(str(ROOT / "examples" / "equinox_mlp.py"))
  assert len(capsys.readouterr().out.splitlines()) == 4
  history = np.asarray(names["history"])
  assert (history[-1] < 0.4 * history[0]).all()
  older, newer = history[-50:].reshape(2, 25, 3).mean(axis=1)
  expected = np.exp(newer / older / 2)
  weights = 3 * expected / expected.sum()
  np.testing.assert_allclose(names["state"].loss.weights, weights, 1e-4)
  assert solves_exactly(names["state"].gradient)
  assert (names["errors"] < 2.5).all()  # mpg; 3.3 and 5.0 if all were the mean
  assert names["accuracy"] > 0.7


def test_toy_draws_paths_and_names_what_it_leaves_out(tmp_path, monkeypatch, capsys):
  toy = ROOT / "examples" / "toy.py"
  options = ["--steps", "200", "--methods", "ew", "nashmtl"]
  monkeypatch.setattr(
    sys, "argv", ["toy.py", f"--out={tmp_path / 'toy.png'}", *options]
  )
  names = runpy.run_path(str(toy), run_name="__main__")
  assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")
  assert "not in it: cosmos, dwa" in capsys.readouterr().out
  assert {name for name in METHODS if names["fits"](name)} >= {"ew", "nashmtl", "unit"}
  # on the Pareto set nothing lowers both losses
  gradients = jax.vmap(jax.jacrev(names["losses_of"]))(names["front"]()[1:-1])
  units = gradients / np.linalg.norm(gradients, axis=-1, keepdims=True)
  assert (np.einsum("ni,ni->n", units[:, 0], units[:, 1]) < -0.99).all()


# ------------------------------------------------------- README, for every balancer


def test_the_readme_starts_with_the_example():
  code = (ROOT / "examples" / "custom_pipeline.py").read_text()
  readme = (ROOT / "README.md").read_text()
  assert readme.partition("```python\n")[2].startswith(code + "```")


def why_refused(name: str) -> str | None:
  """What the README's first block raises with a balancer that asks for more."""
  if balancers.names().get(name) == "loss" and loss_traits(name).needs:
    return "give value_and_balanced_grad a trunk="  # to know where the heads begin
  if getattr(METHODS[name.split("+")[-1]].traits, "fewest_tasks", 1) > 2:
    return "needs num_tasks of at least"
  return None


@pytest.mark.parametrize(
  "name",
  [
    *(
      pytest.param(
        name, marks=() if name in FAMILIES or why_refused(name) else pytest.mark.slow
      )
      for name in balancers.names()
    ),
    "igbv1+mgda",
    pytest.param("igbv2+mgda", marks=pytest.mark.slow),
  ],
)
def test_the_readme_trains_with_every_balancer(name):
  """Its first block, with another name and fewer steps."""
  code = (ROOT / "README.md").read_text().partition("```python\n")[2].split("```")[0]
  needed = {} if "+" in name else needed_options(name, 2)
  options = {
    '"igbv1+nashmtl"': f'"{name}"',
    "steps_per_epoch=50": "steps_per_epoch=2"
    + "".join(f", {option}={value}" for option, value in needed.items()),
    "\nopt_state, state =": "\nstart = params\nopt_state, state =",
    "range(301)": "range(6)",
  }
  for shown, other in options.items():
    assert code.count(shown) == 1
    code = code.replace(shown, other)
  found: dict[str, Any] = {}
  program = compile(code, "README.md", "exec")
  if reason := why_refused(name):
    with pytest.raises(ValueError, match=reason):
      exec(program, found)
    return
  exec(program, found)
  before = found["losses_of"](found["start"], found["x"], found["targets"])
  assert np.isfinite(found["losses"]).all()
  assert (np.asarray(found["losses"]) < before).any()
