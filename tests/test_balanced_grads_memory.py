"""What the balanced step stacks and keeps, and its lean form in checkpoint and scan."""

import functools

import jax
import jax.numpy as jnp
import pytest

from igb_jax import balancers, value_and_balanced_grad
from tests.balanced_problem import assert_close, losses_of, make, problem


def conditional_shapes(function, *args) -> list[list[bool]]:
  """Of each conditional, whether its branches have stacks f32[3, 4, 6]."""
  found = []

  def look(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == "cond":
        branches = equation.params["branches"]
        found.append(sorted("f32[3,4,6]" in str(branch) for branch in branches))
      for value in equation.params.values():
        if hasattr(value, "jaxpr"):
          look(value.jaxpr)

  look(jax.make_jaxpr(function)(*args).jaxpr)
  return found


def test_nothing_is_stacked_but_what_is_shared():
  params, x, _ = problem(3)
  balancer = make("mgda", 3)
  balanced = value_and_balanced_grad(losses_of, balancer)
  text = str(
    jax.make_jaxpr(lambda p, s: balanced(p, x, state=s))(params, balancer.init(params))
  )
  assert "f32[3,4,6]" in text  # of the trunk's kernel
  assert "f32[3,6,3]" not in text  # of the heads


def test_the_branch_of_held_weights_stacks_nothing():
  params, x, _ = problem(3)
  balancer = make("mgda", 3, update_every=4)
  balanced = value_and_balanced_grad(losses_of, balancer)
  step = functools.partial(balanced, params, x)
  shapes = conditional_shapes(lambda s: step(state=s), balancer.init(params))
  assert [False, True] in shapes


WIDTH, DEPTH, MANY = 512, 6, 8
LEAF = 4 * MANY * WIDTH**2  # bytes of the K gradients of one leaf


def deep(params, x):
  for kernel in params["layers"]:
    x = jnp.tanh(x @ kernel)
  return ((x @ params["head"]) ** 2).mean(axis=0)


def temporary_bytes(function, *args) -> int:
  analysis = jax.jit(function).lower(*args).compile().memory_analysis()
  assert analysis is not None
  return analysis.temp_size_in_bytes


def test_the_lean_form_keeps_no_task_gradients():
  params = {
    "layers": [jnp.ones((WIDTH, WIDTH)) / WIDTH] * DEPTH,
    "head": jnp.ones((WIDTH, MANY)) / WIDTH,
  }
  x = jnp.ones((16, WIDTH))
  shared = {"layers": True, "head": False}

  def bytes_of(balancer, **options):
    balanced = value_and_balanced_grad(deep, balancer, **options)
    return temporary_bytes(
      lambda p, s: balanced(p, x, state=s), params, balancer.init(params)
    )

  least = bytes_of(balancers.create("ew", num_tasks=MANY))
  mgda = balancers.create("mgda", num_tasks=MANY, shared=shared)
  assert bytes_of(mgda, keep_task_grads=False) <= least + 3.5 * LEAF
  assert bytes_of(mgda) > least + DEPTH * LEAF / 1.1


@pytest.mark.parametrize("form", ["checkpoint", "scan over layers"])
def test_the_lean_form_works_under_transformations(form):
  keys = jax.random.split(jax.random.key(0), 3)
  params = {
    "layers": 0.4 * jax.random.normal(keys[0], (3, 6, 6)),
    "head": jax.random.normal(keys[1], (6, 3)),
  }
  x = jax.random.normal(keys[2], (8, 6))

  def layer(h, kernel):
    return jnp.tanh(h @ kernel), None

  def fun(params, x):
    body = jax.checkpoint(layer) if form == "checkpoint" else layer  # pyright: ignore[reportPrivateImportUsage]
    h, _ = jax.lax.scan(body, x, params["layers"])
    return ((h @ params["head"]) ** 2).mean(axis=0)

  balancer = balancers.mgda(3, shared={"layers": True, "head": False})
  state = balancer.init(params)
  results = [
    jax.jit(value_and_balanced_grad(fun, balancer, keep_task_grads=keeps))(
      params, x, state=state
    )
    for keeps in (True, False)
  ]
  assert_close(results[1][1], results[0][1], 1e-5)
