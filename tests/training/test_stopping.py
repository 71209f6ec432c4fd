"""Runs that are asked to stop, by a signal or otherwise, and that go on later."""

import os
import signal

import jax
import numpy as np
import pytest

from igb_jax.training import interrupt, records
from igb_jax.training.checkpoint import Checkpoints

from . import problem
from .loop_run import Run


def test_a_request_to_stop_saves_the_epoch_unrecorded(tmp_path):
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
  assert run.best[0].step == 4
  with Checkpoints(tmp_path / "c") as checkpoints:
    restored, progress = checkpoints.restore_newest(run.template)
  assert restored.step == state.step
  assert records.progress_from_json(progress)[0].steps == state.step - 4


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


STOPS = [(0, 1), (1, 0), (1, 2), (2, 3)]


@pytest.mark.parametrize(
  ("stop_at", "spec"),
  [
    *(
      pytest.param(each, "igbv1", marks=() if each == (1, 2) else pytest.mark.slow)
      for each in STOPS
    ),
    ((1, 2), "dwa"),
    ((1, 2), "rlw"),
  ],
)
def test_a_run_that_goes_on_equals_one_that_never_stopped(stop_at, spec, tmp_path):
  whole = Run(tmp_path / "whole", spec=spec)
  expected = whole.train(4)
  stopped = Run(tmp_path / "c", spec=spec)

  def batches(epoch):
    for index, batch in enumerate(problem.batches()):
      if (epoch, index) == stop_at:
        stopped.stop.requested = True
      yield batch

  stopped.batches_of_epoch = batches
  stopped.train(4)
  assert len(stopped.records) < 4
  again = Run(tmp_path / "c", spec=spec)
  with Checkpoints(again.folder) as checkpoints:
    again.state, content = checkpoints.restore_newest(again.template)
  (start,) = records.progress_from_json(content)
  assert start.seconds > 0
  state = again.train(4, start)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  assert [record.epoch for record in stopped.records + again.records] == [0, 1, 2, 3]
  for found, record in zip(again.reached.records, whole.records, strict=True):
    for field in ("num_steps", "learning_rate_scale", "validation"):
      assert getattr(found, field) == getattr(record, field)
    np.testing.assert_array_equal(found.losses, record.losses)
    np.testing.assert_array_equal(found.weights, record.weights)
  assert again.reached.seconds > start.seconds


def test_first_interrupt_asks_and_the_second_raises():
  before = signal.getsignal(signal.SIGINT)
  with interrupt.stop_on_signal() as stop:
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    assert not stop.at_once
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_leaves_no_time():
  before = signal.getsignal(signal.SIGTERM)
  with interrupt.stop_on_signal() as stop:
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGTERM)
      assert stop.requested
      assert stop.at_once
  assert signal.getsignal(signal.SIGTERM) is before
