"""Balance the tasks of your own model in your own optax pipeline."""

import jax
import jax.numpy as jnp
import optax

from igb_jax import balancers, value_and_balanced_grad

keys = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(keys[0], (256, 4))
targets = jnp.stack([x.sum(axis=1), 100 * jnp.sin(x[:, 0])], axis=1)
initial = jax.nn.initializers.lecun_normal()
params = {"trunk": initial(keys[1], (4, 32)), "heads": initial(keys[2], (32, 2))}
shared = {"trunk": True, "heads": False}


def losses_of(params, x, targets):  # any model, one loss per task
  predictions = jnp.tanh(x @ params["trunk"]) @ params["heads"]
  return jnp.mean((predictions - targets) ** 2, axis=0)


balancer = balancers.create(
  "igbv1+nashmtl", num_tasks=2, steps_per_epoch=50, shared=shared
)
balanced = value_and_balanced_grad(losses_of, balancer)
optimizer = optax.adam(1e-2)


@jax.jit
def step(params, opt_state, state):
  losses, gradient, state = balanced(params, x, targets, state=state)
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, state, losses


opt_state, state = optimizer.init(params), balancer.init(params, jax.random.key(1))
for index in range(301):
  params, opt_state, state, losses = step(params, opt_state, state)
  if index % 100 == 0:
    print(index, losses)
