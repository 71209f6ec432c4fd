"""Methods that promise no conflict, on many random problems."""

import numpy as np
import pytest

from tests.balancers.contract import having
from tests.balancers.jacobians import solve_many


@pytest.mark.parametrize("num_tasks", [3, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", having("gradient", avoids_conflict=True))
def test_no_conflict_in_a_thousand_gaussian_cases(name, num_tasks):
  shape = (1000, num_tasks, 2 * num_tasks)
  jacobians = np.random.default_rng(num_tasks).normal(size=shape)
  exact, results, _ = solve_many(name, jacobians)
  results = np.asarray(results, np.float64)
  lengths = np.linalg.norm(exact, axis=-1) * np.linalg.norm(results, axis=-1)[:, None]
  cosines = np.einsum("nkp,np->nk", exact, results) / lengths
  assert cosines.min() > -1e-4
