"""How the learning rate falls."""

import numpy as np
import optax
import pytest

from igb_jax.training.learning_rate import LearningRateConfig
from igb_jax.training.run_folder import differing_options


def test_a_cosine_ends_at_zero_and_needs_no_plateau():
  config = LearningRateConfig(schedule="cosine")
  schedule = config.along(10)
  rates = [float(schedule(step)) for step in range(11)]
  np.testing.assert_allclose(rates[0], 1.0)
  np.testing.assert_allclose(rates[5], 0.5, 1e-6)
  np.testing.assert_allclose(rates[10], 0.0, atol=1e-6)
  assert (np.diff(rates) < 0).all()
  assert config.plateau() is None


def test_the_options_of_the_plateau_are_checked_with_the_plateau_only():
  options = {"learning_rate": 5e-6, "plateau_factor": 1.0, "plateau_patience": -1}
  LearningRateConfig(schedule="cosine", **options).check()
  with pytest.raises(ValueError, match="--min-learning-rate must be positive"):
    LearningRateConfig(**options).check()


def test_a_plateau_lowers_the_rate_and_nothing_else_does():
  config = LearningRateConfig(plateau_factor=0.5, plateau_patience=0)
  assert config.along(10)(7) == 1.0
  plateau = config.plateau(rtol=1e-4)
  assert plateau is not None
  state = plateau.init({})
  for _ in range(3):
    _, state = plateau.update({}, state, value=1.0)
  assert optax.tree.get(state, "scale") < 1


@pytest.mark.parametrize(
  ("before", "now", "count"),
  [
    ({"epochs": 8}, {"epochs": 9, "schedule": "plateau"}, 0),
    ({"epochs": 8, "schedule": "cosine"}, {"epochs": 9, "schedule": "cosine"}, 1),
    ({"epochs": 8}, {"epochs": 8, "schedule": "cosine"}, 1),
    # of QM9 before it had the option
    ({"dim": 64}, {"dim": 64, "edge_dim": 128}, 0),
    ({"dim": 64}, {"dim": 64, "edge_dim": 32}, 1),
    ({"experiment.dim": 64}, {"experiment.dim": 64, "experiment.edge_dim": 128}, 0),
  ],
)
def test_options_that_differ_are_those_that_change_a_run(before, now, count):
  assert len(differing_options(before, now)) == count
