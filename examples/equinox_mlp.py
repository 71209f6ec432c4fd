"""An Equinox model with three tasks: how far a car goes on a gallon, driven by what.

    python examples/equinox_mlp.py

From engine, year and class one net learns miles per gallon in the city and on the
highway, and which wheels are driven, of the 234 cars in the package plotnine.
`eqx.partition` gives the parameters as a pytree, which is all that balancers need.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plotnine.data import mpg

from igb_jax import balancers, value_and_balanced_grad

NUM_TASKS = 3
STEPS = 300


class Model(eqx.Module):
  """A trunk that the tasks share, and a head for each."""

  trunk: eqx.nn.MLP
  miles: eqx.nn.Linear
  drive: eqx.nn.Linear

  def __init__(self, num_features: int, *, key: jax.Array):
    keys = jax.random.split(key, 3)
    self.trunk = eqx.nn.MLP(
      num_features, 32, 32, depth=1, final_activation=jax.nn.relu, key=keys[0]
    )
    self.miles = eqx.nn.Linear(32, 2, key=keys[1])
    self.drive = eqx.nn.Linear(32, 3, key=keys[2])

  def __call__(self, x):
    """Standardised miles per gallon [2], and logits of the driven wheels [3]."""
    shared = self.trunk(x)
    return self.miles(shared), self.drive(shared)


numbers = mpg[["displ", "cyl", "year", "cty", "hwy"]].to_numpy(np.float32)
train, test = np.split(np.random.default_rng(0).permutation(len(mpg)), [180])
mean, deviation = numbers[train].mean(axis=0), numbers[train].std(axis=0)
numbers = (numbers - mean) / deviation
classes = [mpg["class"] == name for name in sorted(set(mpg["class"]))]
x = np.concatenate(
  [numbers[:, :3], np.stack(classes, axis=1)], axis=1, dtype=np.float32
)
miles = numbers[:, 3:]
drive = mpg["drv"].astype("category").cat.codes.to_numpy(np.int32)

params, static = eqx.partition(
  Model(x.shape[1], key=jax.random.key(0)), eqx.is_inexact_array
)


def predict(params, x):
  """What the model gives for a batch, [B, 2] and [B, 3]."""
  model = eqx.combine(params, static)
  return jax.vmap(model)(x)


def losses_of(params, batch):
  """Task losses f32[3] of a batch."""
  predicted_miles, logits = predict(params, batch["x"])
  squares = jnp.mean((predicted_miles - batch["miles"]) ** 2, axis=0)
  entropies = optax.softmax_cross_entropy_with_integer_labels(logits, batch["drive"])
  return jnp.append(squares, entropies.mean())


balancer = balancers.create(
  "dwa+cagrad",
  num_tasks=NUM_TASKS,
  shared=lambda path: "trunk" in jax.tree_util.keystr(path),
)
balanced = value_and_balanced_grad(losses_of, balancer)
optimizer = optax.adam(3e-3)


@jax.jit
def step(params, opt_state, state, batch):
  losses, gradient, state = balanced(params, batch, state=state)
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, state, losses


opt_state, state = optimizer.init(params), balancer.init(params)
batch = {"x": x[train], "miles": miles[train], "drive": drive[train]}
history = []
for index in range(STEPS):
  params, opt_state, state, losses = step(params, opt_state, state, batch)
  history.append(losses)
  if index % 100 == 0:
    print(f"{index}: losses {losses}, weights {state.loss.weights}")

predicted_miles, logits = predict(params, x[test])
errors = deviation[3:] * np.abs(predicted_miles - miles[test]).mean(axis=0)
accuracy = float(np.mean(logits.argmax(axis=1) == drive[test]))
print(f"{len(test)} cars left out: error {errors} mpg, wheels right {accuracy:.2f}")
