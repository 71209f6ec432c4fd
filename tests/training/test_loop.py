"""The training loop: epochs, plateau, checkpoints, failures, stopping."""

import io
import os
import re
import signal

import jax
import numpy as np
import pytest
from rich.console import Console

from igb_jax.training import interrupt, loop
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.progress import TrainProgress

from . import problem


class Run:
  """A run of the small problem with everything that the loop needs."""

  def __init__(self, folder, scores=None, **options):
    self.folder = folder
    self.step, self.state, self.plateau = problem.make(**options)
    self.template = problem.copy(self.state)
    self.scores = scores
    self.records = []
    self.params = []
    self.output = io.StringIO()
    self.stop = interrupt.StopRequest()
    self.batches_of_epoch = lambda epoch: problem.batches()

  def evaluate(self, state):
    params = state.params
    score = self.scores[len(self.records)] if self.scores else float(params["x"].sum())
    self.params.append(np.array(params["x"]))
    return loop.Evaluation(metrics={"error": score}, score=score)

  def train(self, num_epochs):
    console = Console(file=self.output, width=200)
    with Checkpoints(self.folder) as checkpoints:
      final = loop.train(
        self.state,
        step=self.step,
        batches_of_epoch=lambda epoch: self.batches_of_epoch(epoch),
        evaluate=self.evaluate,
        plateau=self.plateau,
        task_names=problem.NAMES,
        num_epochs=num_epochs,
        checkpoints=checkpoints,
        progress=TrainProgress(console, num_epochs, 4),
        stop=self.stop,
        on_epoch=self.records.append,
      )
      self.best = checkpoints.restore_best(self.template)
    return final


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
  epoch, best = run.best
  assert epoch == 1
  assert best.step == 8
  assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "3"]
  assert (best.params["x"] != final.params["x"]).all()
  assert jax.tree.structure(best) == jax.tree.structure(final)


def test_restores_exactly_what_was_saved(tmp_path):
  run = Run(tmp_path / "c", spec="dwa", scores=[3.0, 2.0, 1.0])
  final = run.train(3)
  _, best = run.best
  jax.tree.map(np.testing.assert_array_equal, best, final)


def test_later_steps_do_not_reach_into_what_was_saved(tmp_path):
  run = Run(tmp_path / "c", scores=[3.0, 1.0, 2.0, 5.0, 4.0])
  run.train(5)
  np.testing.assert_array_equal(run.best[1].params["x"], run.params[1])


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
  assert restored[0] == 1


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
  assert restored[0] == 0
  assert restored[1].step == 4


def test_a_request_to_stop_ends_the_epoch_unrecorded(tmp_path):
  run = Run(tmp_path / "c", scores=[1.0, 2.0, 3.0])

  def batches(epoch):
    for index, batch in enumerate(problem.batches()):
      if (epoch, index) == (1, 2):
        run.stop.requested = True
      yield batch

  run.batches_of_epoch = batches
  state = run.train(3)
  assert len(run.records) == 1
  assert 5 <= state.step < 8
  assert run.best[0] == 0


def test_a_request_at_the_last_step_of_an_epoch_keeps_the_epoch(tmp_path):
  run = Run(tmp_path / "c", scores=[1.0, 2.0, 3.0])

  def batches(epoch):
    for index, batch in enumerate(problem.batches()):
      if (epoch, index) == (1, 3):
        run.stop.requested = True
      yield batch

  run.batches_of_epoch = batches
  assert run.train(3).step == 8
  assert len(run.records) == 2


def test_a_request_between_epochs_stops_before_the_next(tmp_path):
  run = Run(tmp_path / "c", scores=[1.0, 2.0])
  run.stop.requested = True
  assert run.train(2).step == 0
  assert run.records == []
  assert run.best is None


def test_first_interrupt_asks_and_the_second_raises():
  before = signal.getsignal(signal.SIGINT)
  with interrupt.stop_on_interrupt() as stop:
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is before


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
