"""The names of methods by what their files say of them."""

from typing import Any

from igb_jax import balancers as balancers  # which fills METHODS
from igb_jax.balancers.methods import METHODS


def having(kind: str, **traits: Any) -> list[str]:
  """The names of one kind whose traits are these.

  Args:
    kind: "loss" or "gradient".
    **traits: of `LossTraits` or `GradientTraits`, with the value of each.
  """
  return [
    name
    for name, method in METHODS.items()
    if method.kind == kind and traits.items() <= method.traits._asdict().items()
  ]


LOSS = having("loss")
GRADIENT = having("gradient")
