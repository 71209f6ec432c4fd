"""ReLoBRaLo against its formula in float64."""

import jax
import numpy as np
import pytest

from igb_jax import balancers
from igb_jax.balancers.common import split_key_data
from tests.balancers.losses import random_losses, run_each


def balance(losses, reference, temperature):
  logits = losses / (temperature * reference)
  weights = np.exp(logits - logits.max())
  return len(losses) * weights / weights.sum()


@pytest.mark.parametrize("lookback", [0.0, 0.6, 1.0])
def test_equals_the_formula_in_float64(lookback):
  losses, decay, temperature = random_losses(60, 3), 0.8, 1.5
  balancer = balancers.relobralo(
    3, decay=decay, temperature=temperature, lookback=lookback
  )
  found = run_each(balancer, {"": (losses, 0)})[""].weights
  values, weights = losses.astype(np.float64), np.ones(3)
  key, draws = balancer.init(jax.random.key(0)).key, []
  for step, current in enumerate(values):
    key, draw = split_key_data(key)
    draws.append(bool(jax.random.bernoulli(draw, lookback)))
    if step:
      kept = weights if draws[-1] else balance(current, values[0], temperature)
      latest = balance(current, values[step - 1], temperature)
      weights = decay * kept + (1 - decay) * latest
    np.testing.assert_allclose(found[step], weights, 1e-4)
  assert lookback in (0, 1) or len({*draws}) == 2
