"""The balancer that a command line names, ready for the training step."""

import json
from collections.abc import Sequence
from typing import Any

from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from igb_jax.balancers.registry import names_of
from igb_jax.training.config import RunConfig
from igb_jax.training.problem import TaskMetric, metrics_of

# The nets' parameters are divided so at the top level.
_SHARED = {"shared": True, "heads": False}


def make_balancer(
  spec: str,
  options: Sequence[str],
  *,
  task_names: Sequence[str],
  steps_per_epoch: int,
) -> balancers.Balancer:
  """Makes what `--balancer` and `--balancer-options` say.

  Args:
    spec: "loss", "gradient" or "loss+gradient", as for `balancers.create`.
    options: hyper-parameters as "NAME=VALUE", where VALUE is a number, true, false, a
      list in JSON or a word; a task's name stands for its number.
    task_names: the names of the K tasks.
    steps_per_epoch: the number of steps in an epoch.

  Returns:
    A balancer with a loss part, `equal` where the specification has none; a gradient
    part takes the heads as not shared.

  Raises:
    TypeError: the balancer takes no such option, or lacks one.
    ValueError: an unknown name, or a bad option.

  Example:
    >>> balancer = make_balancer(
    ...   "nashmtl", ["update_every=10"], task_names=["a", "b"], steps_per_epoch=5)
    >>> balancer.loss.init().weights.shape
    (2,)
  """
  hyperparameters = _hyperparameters(options, task_names)
  num_tasks = len(task_names)
  balancer = balancers.create(
    spec,
    num_tasks=num_tasks,
    steps_per_epoch=steps_per_epoch,
    shared=_SHARED,
    **hyperparameters,
  )
  if balancer.loss is None:
    balancer = balancer._replace(loss=balancers.equal(num_tasks))
  return balancer


def check_balancer(config: RunConfig, task_names: Sequence[str]) -> None:
  """Checks the balancer before the data are loaded, where the tasks are known by then.

  Raises:
    TypeError, ValueError: as `make_balancer` does.
  """
  make_balancer(
    config.balancer, config.balancer_options, task_names=task_names, steps_per_epoch=1
  )


def balances_gradients(spec: str) -> bool:
  """Whether a specification has a gradient balancer, which takes K backward passes.

  Example:
    >>> balances_gradients("igbv1 + imtl"), balances_gradients("igbv1")
    (True, False)
  """
  kinds = balancers.names()
  return any(kinds.get(name) == "gradient" for name in names_of(spec))


def works_at_features(config: RunConfig) -> bool:
  """Whether the step needs the features that the heads read.

  Example:
    >>> [works_at_features(RunConfig(balancer=name)) for name in ("ntksr", "mgda")]
    [True, False]
  """
  names = names_of(config.balancer)
  methods = (METHODS[name] for name in names if name in METHODS)
  return config.balance_at == "features" or any(
    method.traits.backward_passes == "heads" for method in methods
  )


def judged_metrics(
  metrics: Sequence[TaskMetric], config: RunConfig, task_names: Sequence[str]
) -> list[int]:
  """Places of the metrics that judge a run: all, or with "stl" those of its task.

  Example:
    >>> metrics = [TaskMetric("error", "K", name) for name in ("a", "b")]
    >>> alone = RunConfig(balancer="stl + mgda", balancer_options=("task=b",))
    >>> judged_metrics(metrics, alone, ["a", "b"])
    [1]
  """
  if "stl" not in names_of(config.balancer):
    return list(range(len(metrics)))
  task: int = _hyperparameters(config.balancer_options, task_names)["task"]
  return metrics_of(metrics, task_names[task])


def _hyperparameters(
  options: Sequence[str], task_names: Sequence[str]
) -> dict[str, Any]:
  hyperparameters: dict[str, Any] = {}
  for option in options:
    name, equals, value = option.partition("=")
    if not equals or name in ("num_tasks", "steps_per_epoch", "shared"):
      raise ValueError(
        "--balancer-options takes NAME=VALUE with the name of a hyper-parameter, got "
        f"{option!r}."
      )
    if value in task_names:
      hyperparameters[name] = list(task_names).index(value)
    else:
      try:
        hyperparameters[name] = json.loads(value)
      except json.JSONDecodeError:
        if name == "task" or not value.isidentifier():
          raise ValueError(
            f"--balancer-options {option!r}: {value!r} is not a number, truth value "
            "(true, false), list such as [1,2], word or task "
            f"({', '.join(task_names)})."
          ) from None
        hyperparameters[name] = value
  return hyperparameters
