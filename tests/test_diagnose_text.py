"""What the text of `diagnose` says: who dominates or conflicts, and what may help."""

import re

import jax.numpy as jnp
import numpy as np

from igb_jax import diagnose
from igb_jax.balancers.methods import METHODS
from tests.described import Text


def text_of(losses, rows, **options) -> Text:
  found = diagnose(jnp.asarray(losses, jnp.float32), jnp.asarray(rows))
  return Text.of(found.describe(**options))


def methods_in(hint: str) -> list[str]:
  """The methods that a hint names, in its order."""
  return [word for word in re.findall(r"\w+", hint) if word in METHODS]


def test_says_who_dominates_and_what_may_help():
  text = text_of([200.0, 1.0], [[1e4, 0.0], [0.0, 20.0]], task_names=["depth", "seg"])
  assert text.names("depth", "200", "seg", "1") == {"losses"}
  assert text.names("depth", "1e+04", "seg", "20", "500") == {"gradients"}
  assert text.names("0 of 1") == {"conflicts"}
  (hint,) = text.hints
  assert "2.5" in hint  # the factor that is left after a division by the losses
  assert {METHODS[name].kind for name in methods_in(hint)} == {"loss"}
  # the losses say nothing of the gradients' sizes
  text = text_of([1.0, 1.0], [[1e4, 0.0], [0.0, 20.0]])
  assert text.names("task 0", "500") == {"gradients"}
  (hint,) = text.hints
  assert {METHODS[name].kind for name in methods_in(hint)} == {"gradient"}
  # nor do the gradients differ here
  text = text_of([200.0, 1.0], [[1.0, 0.0], [0.0, 2.0]])
  (hint,) = text.hints
  assert not methods_in(hint)


def test_names_the_worst_pair():
  rows = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -0.1]], np.float32)
  text = text_of([1.0, 1.0, 1.0], rows)
  assert text.names("2 of 3", "task 0", "task 2", "-0.995") == {"conflicts"}


def test_names_dependent_tasks():
  of_gramian = "condition number of the normalised Gramian"
  text = text_of([1.0, 1.0, 1.0], [[1.0, 0.0], [0.0, 1.0], [1e-6, 1.0]])
  assert text.names("task 1", "task 2", "(1)") == {of_gramian}
  parallel = text.hints[-1]
  text = text_of([1.0, 1.0], [[1.0, 0.0], [-1.0, 0.0]])
  assert of_gramian in text.names("task 0", "task 1", "(-1)")
  assert text.names("all", "1") == {"losses", "gradients"}
  opposite = text.hints[-1]
  text = text_of([1.0, 1.0, 1.0], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  assert not re.search("task [012]", text.facts[of_gramian])  # no two of them are
  # all name the methods that solve a problem, but only parallel tasks may be one
  assert methods_in(parallel) == methods_in(opposite) == methods_in(text.hints[-1])
  assert parallel != opposite == text.hints[-1]


def test_names_bad_numbers_by_task():
  losses = [np.nan, -1.0, 0.0, 1.0]
  rows = [[np.nan, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
  text = text_of(losses, rows)
  said = [re.findall("task [0-3]", fact) for fact in text.facts.values()]
  for bad in (["task 0"], ["task 1", "task 2"], ["task 1"]):
    assert bad in said
  assert len(text.hints) >= 3


def test_says_when_there_is_nothing_to_do():
  (hint,) = text_of([1.0, 2.0], [[1.0, 0.1], [0.1, 1.0]]).hints
  assert not methods_in(hint)


def test_hints_name_methods_by_their_traits(monkeypatch):
  losses, rows = [200.0, 1.0, -1.0], [[1e4, 0.0], [-20.0, 1.0], [-1.0, 1e-6]]

  def wanted(kind: str, trait: str) -> list[str]:
    return [
      name
      for name, method in METHODS.items()
      if method.kind == kind and getattr(method.traits, trait)
    ]

  traits = [
    ("gradient", "avoids_conflict"),
    ("gradient", "solves"),
    ("gradient", "scale_invariant"),
    ("loss", "needs_positive"),
  ]
  named = [methods_in(hint)[:5] for hint in text_of(losses, rows).hints]
  for kind, trait in traits:
    assert wanted(kind, trait)[:5] in named, trait

  # a list stays short, however many methods there are
  for number in range(20):
    monkeypatch.setitem(METHODS, f"a{number}", METHODS["nashmtl"])
    monkeypatch.setitem(METHODS, f"b{number}", METHODS["si"])
  for hint in text_of(losses, rows).hints:
    assert len(methods_in(hint)) < 10
