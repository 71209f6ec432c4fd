"""The training loop: epochs, plateau, checkpoints, failures, and what it shows."""

import io
import json
import re

import jax
import numpy as np
import pytest
from rich.console import Console

from igb_jax.training import loop, records
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.interval import Interval
from igb_jax.training.progress import TrainProgress
from igb_jax.training.sums import Failure

from . import problem
from .loop_run import Run


def test_records_every_epoch(tmp_path):
  run = Run(tmp_path / "c", spec="uw")
  state = run.train(3)
  assert [record.epoch for record in run.records] == [0, 1, 2]
  assert [record.num_steps for record in run.records] == [4, 8, 12]
  assert state.step == 12
  for record in run.records:
    assert record.losses.shape == record.weights.shape == (3,)
    assert record.train_seconds > 0
    assert 0 <= record.data_seconds <= record.train_seconds
  assert run.records[2].losses.mean() < run.records[0].losses.mean()
  # 4 steps are chunks of 1, 2 and 1; the first of all compiled
  assert [len(record.seconds_per_step) for record in run.records] == [2, 3, 3]


def test_the_sums_start_anew_each_epoch(tmp_path):
  run = Run(tmp_path / "c", learning_rate=1e-9)
  run.train(2)
  np.testing.assert_allclose(run.records[1].losses, run.records[0].losses, 1e-5)
  assert run.records[1].weights.tolist() == [1, 1, 1]


def test_keeps_the_best_epoch_and_the_newest(tmp_path):
  run = Run(tmp_path / "c", scores=[5.0, -3.0, 2.0, 4.0])
  final = run.train(4)
  best, progress = run.best
  assert len(progress["records"]) == 2
  assert best.step == 8
  assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["12", "16", "8"]
  assert (best.params["x"] != final.params["x"]).all()
  assert jax.tree.structure(best) == jax.tree.structure(final)


def test_restores_exactly_what_was_saved(tmp_path):
  run = Run(tmp_path / "c", spec="dwa", scores=[3.0, 2.0, 1.0])
  final = run.train(3)
  best, _ = run.best
  jax.tree.map(np.testing.assert_array_equal, best, final)


def test_later_steps_do_not_reach_into_what_was_saved(tmp_path):
  run = Run(tmp_path / "c", scores=[3.0, 1.0, 2.0, 5.0, 4.0])
  run.train(5)
  np.testing.assert_array_equal(run.best[0].params["x"], run.params[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_validation_that_is_not_finite_stops_and_keeps_the_best(bad, tmp_path):
  run = Run(tmp_path / "c", scores=[5.0, 4.0, bad])
  with pytest.raises(
    loop.NonFiniteError,
    match=r"validation after epoch 3 \(step 12\) .* error = (nan|inf)",
  ):
    run.train(4)
  assert [record.epoch for record in run.records] == [0, 1]
  with Checkpoints(tmp_path / "c") as checkpoints:
    restored = checkpoints.restore_best(run.template)
  assert restored is not None
  assert restored[0].step == 8


def test_nothing_was_saved(tmp_path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    assert checkpoints.restore_best(problem.make()[1]) is None


def test_lowers_the_learning_rate_like_pytorch_where_the_score_stalls(tmp_path):
  scores = [5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0]
  # optax's patience of 2 is PyTorch's of 1: the second bad epoch lowers the rate
  run = Run(tmp_path / "c", scores=scores, patience=2)
  run.train(7)
  scales = [record.learning_rate_scale for record in run.records]
  assert scales == [1, 1, 1, 1, 0.5, 0.5, 0.25]


def test_stops_at_a_loss_that_is_not_finite_and_keeps_what_was_saved(tmp_path):
  run = Run(tmp_path / "c", spec="igbv1", scores=[1.0, 2.0, 3.0])
  run.batches_of_epoch = lambda epoch: problem.batches(
    bad=2 if epoch == 1 else None, value=-50.0
  )
  with pytest.raises(
    loop.NonFiniteError, match=r"stopped at step 6: .* for two \(loss -4"
  ) as caught:
    run.train(3)
  assert caught.value.step == 6
  assert caught.value.tasks == ["two"]
  assert len(run.records) == 1
  with Checkpoints(tmp_path / "c") as checkpoints:
    restored = checkpoints.restore_best(run.template)
  assert restored is not None
  assert restored[0].step == 4


@pytest.mark.parametrize(
  ("value", "remedies"),
  [
    (0.0, ["epsilon=1e-3", "present=losses != 0"]),
    (-0.5, ["A negative loss has no logarithm"]),
    (np.nan, ["lower learning rate"]),
  ],
)
def test_the_error_names_what_helps_at_a_loss_without_logarithm(value, remedies):
  losses = np.float32([1.0, value])
  failure = Failure(np.int32(3), losses, np.float32([0.0, np.nan]))
  error = loop.describe_failure(failure, 0, ["one", "two"], None)
  assert all(remedy in str(error) for remedy in remedies)


def test_saves_when_it_is_time_and_whatever_is_best(tmp_path):
  run = Run(tmp_path / "c", scores=[5.0, 4.0, 6.0, 7.0, 8.0])
  run.keep, run.every = 9, Interval(epochs=2)
  run.train(5)
  saved = {int(path.name) for path in (tmp_path / "c").iterdir()}
  assert saved == {4, 8, 16, 20}  # first, best, every other epoch, last


def test_saves_within_an_epoch_when_it_is_time(tmp_path, monkeypatch):
  monkeypatch.setattr(loop, "_CHUNK_SECONDS", float("inf"))
  run = Run(tmp_path / "c", scores=[5.0, 6.0])
  run.keep, run.every = 9, Interval(seconds=0.0)
  run.train(2)
  saved = {int(path.name) for path in (tmp_path / "c").iterdir()}
  assert saved == {0, 1, 3, 4, 5, 7, 8}  # between chunks of 1, 2 and 1 steps


def test_a_record_survives_json(tmp_path):
  gradient = records.GradientRecord(
    weights=np.array([0.1, 0.7], np.float32),
    cosines=np.array([[1, -0.3], [-0.3, 1]], np.float32),
    conflict_share=1 / 3,
    condition_number=3.3,
    residual=1e-7,
    worst_residual=2e-7,
  )
  record = loop.EpochRecord(
    epoch=2,
    num_steps=12,
    skipped_steps=1,
    losses=np.array([1 / 3, 2e-30]),
    weights=np.array([0.1, 1.9], np.float32),
    gradient=gradient,
    learning_rate_scale=0.7,
    validation=loop.Evaluation(metrics={"mu": 0.1, "alpha": 0.3}, score=-1.5),
    train_seconds=1.0,
    data_seconds=0.1,
    seconds_per_step=[0.2, 0.3],
  )
  content = records.progress_to_json([records.Progress((record,), 3, 1.5)])
  (progress,) = records.progress_from_json(json.loads(json.dumps(content)))
  assert records.progress_to_json([progress]) == content
  assert (progress.steps, progress.seconds) == (3, 1.5)
  found = progress.records[0]
  assert list(found.validation.metrics) == ["mu", "alpha"]
  np.testing.assert_array_equal(found.losses, record.losses)
  np.testing.assert_array_equal(found.gradient.cosines, gradient.cosines)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_epoch_losses_weights_and_rate(terminal, monkeypatch):
  monkeypatch.setattr("igb_jax.training.progress.SECONDS_BETWEEN_LINES", 0.0)
  output = io.StringIO()
  console = Console(file=output, width=80, force_terminal=terminal)
  with TrainProgress(console, num_epochs=2, steps_per_epoch=10) as progress:
    progress.steps(1, 5, [0.5, 1.5], [0.25, 1.75], seconds_per_step=0.5)
    progress.line("done")
    if terminal:
      progress._live.refresh()
  text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue())
  assert "2/2" in text
  if terminal:
    assert re.search(r"left \d:\d\d:\d\d|left -:--:--", text)
  assert "2 steps/s" in text
  assert "loss 1 [0.5..1.5] weights [0.25..1.75]" in text
  assert "done" in text
  assert ("15/20 steps" if terminal else "step 5/10, 2 steps/s, 2 s left") in text
