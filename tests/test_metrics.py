import numpy as np
import pytest
from scipy import stats

from igb_jax.metrics import delta_m, mean_ranks


def test_delta_m_of_the_papers_rows():
  # Dai et al., UAI 2023, Table 2: EW and IGBv1 on QM9, and the single-task base
  base = [0.0671, 0.1814, 60.576, 53.915, 0.5027, 4.539, 58.838, 64.244, 63.852,
          66.223, 0.07212]  # fmt: skip
  ew = [0.106, 0.325, 73.57, 89.67, 5.19, 14.06, 143.4, 144.2, 144.6, 140.3, 0.128]
  igbv1 = [0.271, 0.351, 143.1, 132.4, 1.07, 4.53, 56.74, 57.13, 57.16, 56.73, 0.115]
  assert delta_m(ew, base) == pytest.approx(177.6, abs=0.3)
  assert delta_m(igbv1, base) == pytest.approx(73.9, abs=0.2)


def test_delta_m_turns_the_sign_where_higher_is_better():
  assert delta_m([1.1, 1.1], [1.0, 1.0], [True, False]) == pytest.approx(0)
  assert delta_m([1.1], [1.0], True) == pytest.approx(-10)
  assert delta_m([3.0], [3.0]) == 0


@pytest.mark.parametrize(
  ("metrics", "baselines", "message"),
  [
    ([1.0], [1.0, 2.0], "same length"),
    ([], [], "same length"),
    (1.0, 1.0, "same length"),
    (np.ones((2, 2)), np.ones((2, 2)), "same length"),
    ([1.0], [0.0], "must not be zero"),
  ],
)
def test_delta_m_errors(metrics, baselines, message):
  with pytest.raises(ValueError, match=message):
    delta_m(metrics, baselines)


def test_mean_ranks_share_ties_and_heed_the_sign():
  metrics = [[1.0, 90.0], [1.0, 95.0], [5.0, 10.0]]
  assert mean_ranks(metrics, [False, True]).tolist() == [1.75, 1.25, 3.0]
  assert mean_ranks(metrics, True).tolist() == [2.25, 1.75, 2.0]
  assert mean_ranks([[7.0]]).tolist() == [1.0]


def test_mean_ranks_of_random_tables():
  table = np.random.default_rng(0).integers(0, 5, (12, 7)).astype(float)
  np.testing.assert_allclose(
    mean_ranks(table), stats.rankdata(table, axis=0).mean(axis=1)
  )


def test_a_run_that_failed_ranks_last():
  ranks = mean_ranks([[np.nan, 1.0], [2.0, 3.0], [1.0, np.nan]])
  assert ranks.tolist() == [2.0, 2.0, 2.0]
  assert mean_ranks([[np.nan], [0.0]], higher_is_better=True).tolist() == [2.0, 1.0]


@pytest.mark.parametrize(
  ("metrics", "higher", "message"),
  [
    ([1.0, 2.0], False, "must be a table"),
    ([[]], False, "must be a table"),
    ([[1.0, 2.0]], [True], "one per metric"),
  ],
)
def test_mean_ranks_errors(metrics, higher, message):
  with pytest.raises(ValueError, match=message):
    mean_ranks(metrics, higher)
