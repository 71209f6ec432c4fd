"""Balance the tasks of your own model in your own optax pipeline."""

import jax
import jax.numpy as jnp
import optax

from igb_jax import balancers, value_and_task_grads

keys = jax.random.split(jax.random.key(0), 3)
x = jax.random.normal(keys[0], (256, 4))
targets = jnp.stack([x.sum(axis=1), 100 * jnp.sin(x[:, 0])], axis=1)
params = {  # any pytree will do
  "trunk": jax.random.normal(keys[1], (4, 32)) / 2,
  "heads": jax.random.normal(keys[2], (32, 2)) / 6,
}
loss_balancer = balancers.igbv1(num_tasks=2, steps_per_epoch=50)
optimizer = optax.chain(
  balancers.nash_mtl(num_tasks=2, shared={"trunk": True, "heads": False}),
  optax.adam(1e-2),
)


@jax.jit
def step(params, opt_state, loss_state):
  def weighted_losses(params):
    predictions = jnp.tanh(x @ params["trunk"]) @ params["heads"]
    losses = jnp.mean((predictions - targets) ** 2, axis=0)  # one a task
    weighted, new_state = loss_balancer.update(losses, loss_state)
    return weighted, (losses, new_state)

  task_grads_of = value_and_task_grads(weighted_losses, has_aux=True)
  (_, (losses, loss_state)), task_grads = task_grads_of(params)
  updates, opt_state = optimizer.update(task_grads, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, loss_state, losses


opt_state, loss_state = optimizer.init(params), loss_balancer.init()
for index in range(301):
  params, opt_state, loss_state, losses = step(params, opt_state, loss_state)
  if index % 100 == 0:
    nash = opt_state[0]
    print(f"{index}: losses {losses}, weights {nash.weights}, {nash.residual:.0e}")
