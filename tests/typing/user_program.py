# pyright: strict, reportMissingTypeStubs=false, reportUnknownMemberType=false
"""A user's program with every public name, typed as strictly as a user may type it.

`tests/test_packaging.py` checks it with pyright against the installed wheel, and runs
it: `assert_type` says what a user's editor shows, the other assertions what is there.
The two rules that are off are broken by optax, which ships no types, and by jax, whose
`jnp.array` and the like are partly unknown.
"""

from typing import Literal, NamedTuple, assert_type

import jax
import jax.numpy as jnp
import optax

import igb_jax
from igb_jax import (
  Balancer,
  Diagnosis,
  LossBalancer,
  balancers,
  diagnose,
  value_and_balanced_grad,
  value_and_task_grads,
)
from igb_jax.balancers import sac, solvers
from igb_jax.balancers.gradient.base import GradientBalancer, GradientState
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.loss.dynamic_weight_average import DynamicWeightAverageState
from igb_jax.balancers.loss.equal import EqualState
from igb_jax.balancers.loss.igbv1 import IGBv1State
from igb_jax.balancers.loss.igbv2 import IGBv2State
from igb_jax.balancers.loss.random_loss_weighting import RandomLossWeightingState
from igb_jax.balancers.loss.scale_invariant import ScaleInvariantState
from igb_jax.balancers.loss.single_task import SingleTaskState
from igb_jax.balancers.loss.uncertainty_weighting import UncertaintyWeightingState
from igb_jax.metrics import delta_m

NUM_TASKS = 3
PRESENT = jnp.array([True, False, True])


class Params(NamedTuple):
  """A user's own parameters: any pytree will do."""

  trunk: jax.Array
  heads: jax.Array


def losses_of(params: Params, x: jax.Array) -> jax.Array:
  """One scalar per task, f32[K]."""
  features = jnp.tanh(x * params.trunk)
  return jnp.stack([jnp.mean((features - head) ** 2) for head in params.heads]) + 0.1


def is_shared(path: tuple[object, ...]) -> bool:
  """The heads are the tasks' own."""
  return "trunk" in str(path[0])


def every_loss_balancer() -> list[tuple[LossBalancer, type]]:
  """Each with the type of its state."""
  return [
    (balancers.equal(NUM_TASKS), EqualState),
    (balancers.scale_invariant(NUM_TASKS), ScaleInvariantState),
    (balancers.single_task(NUM_TASKS, task=1), SingleTaskState),
    (balancers.random_loss_weighting(NUM_TASKS, log=True), RandomLossWeightingState),
    (
      balancers.dynamic_weight_average(NUM_TASKS, window=5, temperature=2.0, log=False),
      DynamicWeightAverageState,
    ),
    (
      balancers.uncertainty_weighting(NUM_TASKS, learning_rate=0.025, log=True),
      UncertaintyWeightingState,
    ),
    (balancers.igbv1(NUM_TASKS, steps_per_epoch=2, base_epoch=0), IGBv1State),
    (
      balancers.igbv2(NUM_TASKS, steps_per_epoch=2, buffer_size=8, hidden_sizes=(4, 4)),
      IGBv2State,
    ),
  ]


def unit(grads: TaskGrads, gramian: solvers.Gramian) -> solvers.Solution:
  """A user's own rule: every task gradient as long as the shortest."""
  return solvers.Solution(gramian.norms.min() / gramian.norms)


def every_gradient_balancer() -> list[GradientBalancer]:
  """All of them have one type of state."""
  return [
    balancers.mgda(NUM_TASKS, update_every=2),
    balancers.pcgrad(NUM_TASKS, shared=is_shared),
    balancers.cagrad(NUM_TASKS, c=0.4, shared=is_shared),
    balancers.imtl_g(NUM_TASKS, shared=None),
    balancers.nash_mtl(NUM_TASKS, max_norm=1.0, update_every=2),
    balancers.moco(NUM_TASKS),
    balancers.graddrop(NUM_TASKS),
    balancers.weighting(NUM_TASKS, unit),
  ]


def weigh(losses: jax.Array) -> None:
  """Every loss balancer, its state and what is in it."""
  for balancer, state_type in every_loss_balancer():
    state = balancer.init(jax.random.key(0))
    weighted, state = balancer.update(losses, state, learning_rate_ratio=1.0)
    assert_type(weighted, jax.Array)
    assert weighted.shape == (NUM_TASKS,)
    weighted, state = balancer.update(losses, state, present=PRESENT)
    assert type(state) is state_type
    match state:
      case IGBv1State():
        assert_type(state.base_losses, jax.Array)
        assert_type(state.base_count, jax.Array)
        assert_type(state.weights, jax.Array)
      case IGBv2State():
        assert_type(state.agent, sac.AgentState)
        assert_type(state.replay, sac.Replay)
        assert_type(state.replay.transitions, sac.Transitions)
        assert_type(state.num_outliers, jax.Array)
        assert_type(state.weights, jax.Array)
      case UncertaintyWeightingState():
        assert_type(state.log_variance, jax.Array)
        assert_type(state.weights, jax.Array)
      case DynamicWeightAverageState():
        assert_type(state.window, jax.Array)
        assert_type(state.weights, jax.Array)
      case RandomLossWeightingState():
        assert_type(state.key, jax.Array)
        assert_type(state.weights, jax.Array)
      case EqualState() | ScaleInvariantState() | SingleTaskState():
        assert_type(state.weights, jax.Array)
      case _:
        raise AssertionError(state)


def combine(params: Params, x: jax.Array) -> None:
  """Every gradient balancer in a pipeline, its state and what is in it."""
  _, task_grads = value_and_task_grads(losses_of, batch_size=2)(params, x)
  for balancer in every_gradient_balancer():
    gradient, state = balancer.update(
      task_grads, balancer.init(params), params, present=PRESENT
    )
    assert isinstance(gradient, Params)
    assert gradient.trunk.shape == params.trunk.shape
    assert isinstance(state, GradientState)
    assert_type(state.weights, jax.Array)
    assert_type(state.gramian, solvers.Gramian)
    assert_type(state.gramian.cosines, jax.Array)
    assert_type(state.residual, jax.Array)
    assert_type(state.violation, jax.Array)
    assert_type(state.key, jax.Array | None)
    assert_type(state.held, jax.Array | None)


def step(params: Params, x: jax.Array) -> None:
  """The losses and the balanced gradient, whichever the balancer is."""
  balancer = balancers.create("rlw+pcgrad", num_tasks=NUM_TASKS, shared=is_shared)
  state = balancer.init(params, jax.random.key(0))
  assert_type(state, balancers.BalancerState)
  balanced = value_and_balanced_grad(losses_of, balancer)
  losses, gradient, state = balanced(params, x, state=state, present=PRESENT)
  assert_type(state, balancers.BalancerState)
  assert_type(state.gradient, GradientState | None)
  assert losses.shape == (NUM_TASKS,)
  assert isinstance(gradient, Params)


def look(params: Params, x: jax.Array) -> None:
  """`diagnose`, and what it finds."""
  losses, task_grads = value_and_task_grads(losses_of)(params, x)
  found = diagnose(losses, task_grads, shared=is_shared)
  assert_type(found, Diagnosis)
  assert_type(found.condition_number, jax.Array)
  assert found.cosines.shape == (NUM_TASKS, NUM_TASKS)
  text = found.describe(["a", "b", "c"])
  assert_type(text, str)
  assert "conflict" in text


def by_name(losses: jax.Array) -> None:
  """`create`, and what it makes."""
  assert_type(balancers.names(), dict[str, Literal["loss", "gradient"]])
  balancer = balancers.create(
    "igbv1+nashmtl", num_tasks=NUM_TASKS, steps_per_epoch=2, update_every=2
  )
  assert_type(balancer, Balancer)
  assert_type(balancer.loss, LossBalancer | None)
  assert_type(balancer.gradient, GradientBalancer | None)
  assert balancer.loss is not None
  assert balancer.gradient is not None
  weighted, _ = balancer.loss.update(losses, balancer.loss.init())
  assert_type(weighted, jax.Array)
  optimizer = optax.chain(balancer.gradient, optax.adam(1e-3))
  assert_type(optimizer, optax.GradientTransformationExtraArgs)


def parts(losses: jax.Array) -> None:
  """The agent and the solvers on their own."""
  agent = sac.agent(NUM_TASKS, hidden_sizes=(4, 4))
  assert_type(agent, sac.Agent)
  state = agent.init(jax.random.key(0))
  assert_type(agent.act(state, losses, jnp.zeros(NUM_TASKS)), jax.Array)
  replay = sac.empty(4, NUM_TASKS)
  transition = sac.Transitions(losses, losses, jnp.float32(0.5), losses)
  replay = sac.add(replay, transition, jnp.array(True))
  batch = sac.sample(replay, 2, jax.random.key(1))
  zeros = jnp.zeros((2, NUM_TASKS))
  state = agent.update(state, batch, sac.Noise(zeros, zeros), jnp.ones(2))
  assert_type(state, sac.AgentState)
  assert_type(state.log_alpha, jax.Array)

  leaves = [jnp.eye(NUM_TASKS)]
  gramian = solvers.Gramian.of(leaves)
  mean = solvers.Mean.of(leaves, gramian)
  assert_type(mean.norm, jax.Array)
  for solution in (
    solvers.min_norm(gramian),
    solvers.nash(gramian),
    solvers.trust_region(gramian, mean, c=0.4),
  ):
    assert_type(solution, solvers.Solution)
    assert solution.weights.shape == (NUM_TASKS,)
    assert jnp.shape(solution.residual) == ()


def main() -> None:
  """Runs all of it: most is only traced, as in a jitted step, which takes less time."""
  params = Params(jnp.ones(4), jnp.array([[0.1], [0.5], [-0.9]]))
  x = jnp.arange(4.0)
  losses = losses_of(params, x)
  for use in (weigh, by_name, parts):
    jax.eval_shape(use, losses)
  for use in (combine, step):
    jax.eval_shape(use, params, x)
  look(params, x)
  assert_type(delta_m([1.0, 2.0], [1.0, 1.0], [True, False]), float)
  assert_type(igb_jax.__version__, str)


if __name__ == "__main__":
  main()
