"""A run of the training loop on the small problem."""

import io
import itertools

import numpy as np
from rich.console import Console

from igb_jax.training import interrupt, loop
from igb_jax.training.checkpoint import Checkpoints
from igb_jax.training.interval import EVERY_EPOCH
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
    self.keep = 1
    self.every = EVERY_EPOCH

  def evaluate(self, state):
    params = state.params
    score = self.scores[len(self.records)] if self.scores else float(params["x"].sum())
    self.params.append(np.array(params["x"]))
    return loop.Evaluation(metrics={"error": score}, score=score)

  def train(self, num_epochs, start=None):
    console = Console(file=self.output, width=200)
    with Checkpoints(self.folder, every=self.every, keep=self.keep) as checkpoints:
      final, reached = loop.train(
        self.state,
        step=self.step,
        batches_of_epoch=lambda epoch, start: itertools.islice(
          self.batches_of_epoch(epoch), start, None
        ),
        evaluate=self.evaluate,
        plateau=self.plateau,
        task_names=problem.NAMES,
        num_epochs=num_epochs,
        checkpoints=checkpoints,
        progress=TrainProgress(console, num_epochs, 4),
        stop=self.stop,
        on_epoch=lambda _, record: self.records.append(record),
        start=[start or loop.Progress()],
      )
      (self.reached,) = reached
      self.best = checkpoints.restore_best(self.template)
    return final
