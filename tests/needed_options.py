"""Options that a balancer cannot be made without, beside those that every run has."""

import inspect
import json
from typing import Any

from igb_jax.balancers.methods import METHODS


def needed_options(name: str, num_tasks: int) -> dict[str, Any]:
  """A value for each; a method that trains one task alone has the last."""
  values = {"task": num_tasks - 1, "mu": 1.0, "preference": [1.0] * num_tasks}
  parameters = inspect.signature(METHODS[name].constructor).parameters.values()
  known = {"num_tasks", "steps_per_epoch"}
  return {
    each.name: values[each.name]
    for each in parameters
    if each.default is each.empty and each.name not in known
  }


def needed_flags(name: str, num_tasks: int) -> list[str]:
  """The same for a command line."""
  needed = needed_options(name, num_tasks)
  flags = [f"{option}={json.dumps(value)}" for option, value in needed.items()]
  return ["--balancer-options", *flags] if flags else []
