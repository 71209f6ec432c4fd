"""Which leaves are shared: every form that says so, and gradients that do not fit."""

import dataclasses

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igb_jax.balancers.gradient.shared import shared_leaves
from tests.balancers.contract import make_gradient

PARAMS = {"heads": jnp.zeros(5), "trunk": {"b": jnp.zeros(3), "w": jnp.zeros((4, 3))}}
FORMS = {
  "predicate": lambda path: path[0].key == "trunk",
  "predicate of NumPy": lambda path: np.bool_(path[0].key == "trunk"),
  "tree": {"heads": False, "trunk": {"b": True, "w": True}},
  "prefix": {"heads": False, "trunk": True},
  "bools of NumPy": {"heads": np.bool_(False), "trunk": np.bool_(True)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_same_leaves(form):
  assert shared_leaves(FORMS[form], PARAMS) == [False, True, True]
  assert shared_leaves(FORMS[form], flax.core.freeze(PARAMS)) == [False, True, True]
  assert shared_leaves(None, PARAMS) == [True] * 3


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Callable:
  """Parameters, or flags, that can be called, as every Equinox model can."""

  heads: object
  trunk: object

  def __call__(self, x):
    return x @ self.trunk @ self.heads


def test_a_tree_of_bools_may_be_callable():
  model = Callable(heads=jnp.ones(2), trunk=jnp.ones((2, 2)))
  flags = Callable(heads=False, trunk=True)
  assert shared_leaves(flags, model) == [False, True]


@pytest.mark.parametrize(
  ("shared", "error", "message"),
  [
    ({"trunk": True}, ValueError, "does not fit"),
    ([True, False], ValueError, "does not fit"),
    (lambda path: False, ValueError, r"no parameter is shared.*\['heads'\]"),
    (False, ValueError, "no parameter is shared"),
    (lambda path: None, TypeError, r"True or False for every leaf, got None for \["),
    ({"trunk": 1, "heads": 0}, TypeError, "True or False for every leaf, got"),
  ],
)
def test_what_does_not_fit_is_refused_at_init(shared, error, message):
  balancer = make_gradient("mgda", 3, shared=shared)
  with pytest.raises(error, match=message):
    balancer.init(PARAMS)


SMALL = {"b": jnp.zeros(3), "w": jnp.ones((2, 3))}
GRADS = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape)), SMALL)


@pytest.mark.parametrize(
  ("grads", "named"),
  [
    ({"b": GRADS["b"]}, "['w']"),
    ({**GRADS, "more": jnp.zeros((2, 1))}, "['more']"),
    ({"b": GRADS["b"], "w": optax.MaskedNode()}, "['w']"),
  ],
)
def test_gradients_of_another_structure_are_refused(grads, named):
  balancer = make_gradient("cagrad", 2)
  with pytest.raises(ValueError, match="structure of the parameters") as error:
    balancer.update(grads, balancer.init(SMALL), SMALL)
  assert named in str(error.value)


def test_a_leaf_of_another_shape_is_named():
  grads = {"b": jnp.zeros((2, 3)), "w": jnp.zeros((2, 3, 2))}
  balancer = make_gradient("mgda", 2)
  with pytest.raises(ValueError, match=r"task_grads\['w'\].*\(2, 2, 3\).*\(2, 3, 2\)"):
    balancer.update(grads, balancer.init(SMALL), SMALL)


def test_without_parameters_only_the_leading_axis_is_checked():
  balancer = make_gradient("mgda", 2)
  params = {"w": jnp.ones((2, 3))}
  gradient, _ = jax.eval_shape(balancer.update, params, balancer.init(params))
  assert gradient["w"].shape == (3,)
