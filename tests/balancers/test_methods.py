"""What each file of a method says of it."""

import pytest

from igb_jax import balancers
from igb_jax.balancers import methods
from igb_jax.balancers.methods import METHODS

TRAITS = METHODS["mgda"].traits._asdict()


@pytest.fixture
def empty(monkeypatch):
  monkeypatch.setattr(methods, "METHODS", {})
  monkeypatch.setattr(methods, "ALIASES", {})


def test_a_constructor_gets_its_names_and_stays_what_it_is(empty):
  def probe(num_tasks, *, log):
    return num_tasks, log

  register = methods.method("probe", "gradient", paper="A, B 2026", alias="p", **TRAITS)
  assert register(probe) is probe
  methods.method("probelog", "gradient", fixed={"log": True}, **TRAITS)(probe)
  assert methods.ALIASES == {"p": "probe"}
  assert methods.METHODS["probe"].paper == "A, B 2026"
  assert methods.METHODS["probe"].traits == methods.GradientTraits(**TRAITS)
  assert methods.METHODS["probelog"].constructor(3) == (3, True)
  assert methods.METHODS["probelog"].constructor_name == "probe"


def test_methods_are_in_order_whichever_is_imported_first():
  kinds = list(balancers.names().values())
  assert kinds == sorted(kinds, reverse=True)
  for kind in ("loss", "gradient"):
    names = [name for name, found in balancers.names().items() if found == kind]
    assert names == sorted(names)


@pytest.mark.parametrize("trait", TRAITS)
def test_a_forgotten_trait_is_an_error(empty, trait):
  fewer = {name: value for name, value in TRAITS.items() if name != trait}
  with pytest.raises(TypeError, match=trait):
    methods.method("probe", "gradient", **fewer)


def test_an_unknown_trait_is_an_error(empty):
  with pytest.raises(TypeError, match="takes_log"):
    methods.method("probe", "gradient", takes_log=True, **TRAITS)


@pytest.mark.parametrize("names", [{"name": "mgda"}, {"name": "x", "alias": "imtl"}])
def test_a_name_belongs_to_one_method(names):
  with pytest.raises(ValueError, match="is already registered"):
    methods.method(kind="gradient", **names, **TRAITS)(lambda num_tasks: num_tasks)
  assert "x" not in methods.METHODS
