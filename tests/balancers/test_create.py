"""`create`: names, combinations, hyper-parameters, and what it refuses."""

import optax
import pytest

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from tests.balancers.contract import GRADIENT, LOSS


def test_names_are_the_documented_ones():
  assert set(LOSS) >= {
    "ew", "si", "stl", "rlw", "rlwlog", "dwa", "dwalog", "uw", "uwlog", "igbv1",
    "igbv2",
  }  # fmt: skip
  assert set(GRADIENT) >= {
    "cagrad", "graddrop", "imtlg", "mgda", "moco", "nashmtl", "pcgrad",
  }  # fmt: skip


def test_spaces_in_a_specification_do_not_matter():
  assert balancers.create("ew + mgda", num_tasks=2).gradient is not None


@pytest.mark.parametrize(("alias", "kind"), [("imtl", "gradient"), ("ls", "loss")])
def test_aliases_are_no_names(alias, kind):
  assert getattr(balancers.create(alias, num_tasks=2), kind) is not None
  assert alias not in balancers.names()


def test_hyperparameters_are_passed_on():
  balancer = balancers.create("dwa", num_tasks=2, window=3).loss
  assert balancer is not None
  assert balancer.init().window.shape == (6, 2)


@pytest.mark.parametrize(
  ("spec", "given", "expected"),
  [
    ("igbv2", {}, 3e-4),
    ("igbv2+mgda", {}, 1e-4),
    ("pcgrad+igbv2", {}, 1e-4),
    ("igbv2+nashmtl", {}, 1e-4),
    ("igbv2+cagrad", {}, 3e-4),
    ("igbv2+nashmtl", {"learning_rate": 0.5}, 0.5),
  ],
)
def test_igbv2s_agent_learns_slower_beside_some(spec, given, expected, monkeypatch):
  rates = []
  adam = optax.adam
  monkeypatch.setattr(optax, "adam", lambda rate: rates.append(rate) or adam(rate))
  balancers.create(spec, num_tasks=3, steps_per_epoch=2, **given)
  assert set(rates) == {expected}


@pytest.mark.parametrize(
  ("spec", "arguments", "error", "message"),
  [
    ("igbv9", {}, ValueError, "'igbv9'"),
    ("", {}, ValueError, "''"),
    ("ew+", {}, ValueError, "''"),
    ("EW", {}, ValueError, "'EW'.*'ew'"),
    ("igvb1", {}, ValueError, "'igvb1' in 'igvb1' .*'igbv1'"),
    ("ew+nash_mtl", {}, ValueError, "'nash_mtl' in .*'nashmtl'"),
    ("uncertainty_weighting", {}, ValueError, "'uncertainty_weighting'.*'uw'"),
    ("ew+si", {}, ValueError, "'ew.si' names two loss"),
    ("mgda+pcgrad", {}, ValueError, "'mgda.pcgrad' names two gradient"),
    ("dwa", {"temprature": 1.0}, TypeError, "temprature.*temperature, window"),
    ("ew", {"window": 2, "c": 0.4}, TypeError, "c, window.*absent"),
    ("mgda", {"c": 0.4}, TypeError, "'mgda' .* c;.*update_every"),
    ("pcgrad", {"key": 3}, TypeError, "'pcgrad' .* key;"),
    ("rlwlog", {"log": False}, TypeError, "'rlwlog' .* log;"),
    ("uw", {"log": True}, TypeError, "'uw' .* log;"),
    ("igbv1", {}, TypeError, "'igbv1' needs steps_per_epoch"),
    ("stl", {}, TypeError, "'stl' needs task"),
    ("dwa", {"temperature": -1.0}, ValueError, r"temperature must be .*-1\.0"),
    (None, {}, TypeError, "None"),
  ],
)
def test_errors_name_what_is_wrong(spec, arguments, error, message):
  with pytest.raises(error, match=message):
    balancers.create(spec, num_tasks=2, **arguments)


def test_an_unknown_name_gets_the_list_of_all():
  with pytest.raises(ValueError, match="'zzz'") as error:
    balancers.create("zzz", num_tasks=2)
  assert ", ".join(METHODS) in str(error.value)
  assert "mean" not in str(error.value)  # nothing is like it
