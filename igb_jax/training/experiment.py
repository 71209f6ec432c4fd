"""One run of a problem: net, balancer, optimiser and batches, ready to train.

    state = experiment.init_state()
    for epoch in range(config.epochs):
      for batch in experiment.epoch_batches(epoch):
        state = experiment.step(state, batch)
      evaluation = experiment.evaluate(state, "validation")

is what a run does along a cosine; the epoch with the lowest validation delta_m is then
restored and tested. `loop.train` has this loop, and adds to it the plateau,
checkpoints, stops, several seeds, and an end where numbers are not finite. `main` makes
the experiment, and `run` calls the loop and tests.
"""

import copy
import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Generic, Literal, TypeVar

import jax
import numpy as np
import optax

from igb_jax.data.loader import prefetch
from igb_jax.metrics import delta_m
from igb_jax.training.balancing import judged_metrics, make_balancer, works_at_features
from igb_jax.training.config import RunConfig
from igb_jax.training.devices import Devices
from igb_jax.training.problem import Problem, metrics_of
from igb_jax.training.records import Evaluation
from igb_jax.training.step import Batch, TrainState, init_state, make_train_step

Config = TypeVar("Config", bound=RunConfig)


class Experiment(Generic[Config]):
  """Trains a problem as a configuration says.

  Attributes:
    config: the configuration of the run.
    devices: the devices of the run.
    problem: what is learnt.
    balancer: the balancer of the run.
    optimizer: the optimiser of the run, at the initial learning rate.
    follows_scores: whether the balancer takes `scores`, so that `step` gets them too:
      `Evaluation.of_tasks` of the latest validation.
    step: the jitted step of `step.py`: batch -> losses f32[K] -> balancer -> gradient
      -> Adam -> updates times current / initial learning rate -> parameters. A step
      with numbers that are not finite changes nothing, and ends the run unless
      --on-nonfinite=skip.
    initial_params: the initial parameters of the net, a function of the seed.
    initial_variables: the initial variables of the net, or None.
  """

  def __init__(
    self, make_problem: Callable[[Config, Devices], Problem], config: Config
  ):
    """Prepares everything; whatever is wrong with the configuration is raised here.

    Raises:
      TypeError, ValueError: an option is wrong.
      FileNotFoundError, OSError: the data cannot be obtained or stored.
    """
    config.check()
    self.config = config
    self.devices = Devices(config.devices, config.mesh)
    self.devices.check_batch_size(config.batch_size)
    self.problem = problem = make_problem(config, self.devices)
    at_features = works_at_features(config)
    if at_features and problem.trunk is None:
      raise ValueError(
        f"{config.balancer} at the features needs a task with a trunk, and that of "
        f"{problem.description} has none; see ArrayTask.trunk."
      )
    self.balancer = make_balancer(
      config.balancer,
      config.balancer_options,
      task_names=problem.task_names,
      steps_per_epoch=problem.steps_per_epoch,
    )
    gradient = self.balancer.gradient
    self.follows_scores = gradient is not None and "scores" in gradient.extra
    if self.follows_scores and problem.averaged_epochs is not None:
      raise ValueError(
        f"{config.balancer} follows each task's validation scores, and {problem.name} "
        "as it is divided here has no validation split, only a test split. Divide it "
        "otherwise (nyuv2: --split=paper), or choose another balancer."
      )
    # the step multiplies its updates by the schedule, and by the plateau's scale
    self.optimizer = optax.adam(config.learning_rate)
    # losses take the features of the trunk, losses_of the batch alone
    self.step = make_train_step(
      problem.losses if at_features else problem.losses_of,
      self.balancer,
      self.optimizer,
      trunk=problem.trunk if at_features else None,
      keep_task_grads=config.keep_task_grads,
      stateful=problem.stateful,
      present_of=problem.present,
      max_skips=config.max_skips if config.on_nonfinite == "skip" else 0,
      schedule=problem.schedule,
      placement=self.devices.placement,
    )
    self._judged = judged_metrics(problem.metrics, config, problem.task_names)
    self._init = jax.jit(problem.init)
    self.set_seed(config.seed)
    # fails now if the parameters are not divided as the balancer needs them
    jax.eval_shape(self._new_state)

  def set_seed(self, seed: int) -> None:
    """Resets what depends on the seed: initial parameters, order of the batches."""
    self.config = dataclasses.replace(self.config, seed=seed)
    self._source = self.problem.batches(seed)
    self._loader: Generator[Batch] | None = None
    self._next_batch = 0  # of the loader, counted from the start of training
    params_key, self._balancer_key = jax.random.split(jax.random.key(seed))
    initial = self._init(params_key)
    pair = initial if self.problem.stateful else (initial, None)
    self.initial_params, self.initial_variables = pair

  def init_state(self) -> TrainState:
    """The state before the first step."""
    return self.devices.put_state(self._new_state())

  def _new_state(self) -> TrainState:
    return init_state(
      self.initial_params,
      variables=self.initial_variables,
      balancer=self.balancer,
      optimizer=self.optimizer,
      plateau=self.problem.plateau,
      key=self._balancer_key,
    )

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
    """An epoch's batches from number `start` on; the loader serves all epochs."""
    first = epoch * self.problem.steps_per_epoch + start
    if self._next_batch != first:
      self.close()
    if self._loader is None:
      workers = self.problem.workers
      self._loader = prefetch(self._source, workers=workers, start=first)
      self._next_batch = first
    for _ in range(start, self.problem.steps_per_epoch):
      batch = next(self._loader)
      self._next_batch += 1
      yield self.devices.put_batch(batch)

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """The metrics of a split, and delta_m; with "stl" that of the task alone."""
    metrics, tasks = self.problem.metrics, self.problem.task_names
    values = np.asarray(self.problem.measure(state.params, state.variables, split))
    bases = np.asarray(self.problem.bases)
    higher_is_better = np.array([metric.higher_is_better for metric in metrics])

    def score(places: list[int]) -> float:
      chosen = (each[places] for each in (values, bases, higher_is_better))
      return delta_m(*chosen)

    return Evaluation(
      metrics=dict(zip((each.name for each in metrics), values.tolist(), strict=True)),
      score=score(self._judged),
      of_tasks=tuple(score(metrics_of(metrics, task)) for task in tasks),
    )

  def close(self) -> None:
    """Ends the loader and its processes."""
    if self._loader is not None:
      self._loader.close()
      self._loader = None


def for_seed(experiment: Experiment[Config], seed: int) -> Experiment[Config]:
  """The same with another seed; it shares data, net and compiled functions."""
  other = copy.copy(experiment)
  other.set_seed(seed)
  return other
