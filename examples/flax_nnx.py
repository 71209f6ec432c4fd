"""A Flax NNX model with three tasks of two kinds: a penguin's species, sex and mass.

    python examples/flax_nnx.py

From bill and flipper one net learns two classes and a number of the 333 penguins that
the package plotnine has without a gap. `nnx.split` gives the parameters as a pytree,
which is all that balancers need. With batch norm or dropout, merge with `copy=True`, as
docs/how_to/own_model.md shows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from plotnine.data import penguins

from igb_jax import balancers, value_and_balanced_grad

MEASURES = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm"]
NUM_TASKS = 3
BATCH_SIZE = 64
EPOCHS = 60


class Model(nnx.Module):
  """A trunk that the tasks share, and a head for each."""

  def __init__(self, rngs: nnx.Rngs):
    self.trunk = nnx.Sequential(
      nnx.Linear(len(MEASURES), 32, rngs=rngs),
      nnx.relu,
      nnx.Linear(32, 32, rngs=rngs),
      nnx.relu,
    )
    self.species = nnx.Linear(32, 3, rngs=rngs)
    self.sex = nnx.Linear(32, 2, rngs=rngs)
    self.mass = nnx.Linear(32, 1, rngs=rngs)

  def __call__(self, x):
    """Logits of species [B, 3] and sex [B, 2], standardised mass [B]."""
    shared = self.trunk(x)
    return self.species(shared), self.sex(shared), self.mass(shared)[:, 0]


table = penguins.dropna()
rows = np.random.default_rng(0).permutation(len(table))
train_rows, test_rows = np.split(rows, [4 * BATCH_SIZE])
numbers = table[[*MEASURES, "body_mass_g"]].to_numpy(np.float32)
mean, deviation = numbers[train_rows].mean(axis=0), numbers[train_rows].std(axis=0)
numbers = (numbers - mean) / deviation
data = {
  "x": numbers[:, :-1],
  "species": table["species"].cat.codes.to_numpy(np.int32),
  "sex": table["sex"].cat.codes.to_numpy(np.int32),
  "mass": numbers[:, -1],
}

graph, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)


def losses_of(params, batch):
  """Task losses f32[3] of a batch; `nnx.merge` makes the model again."""
  species, sex, mass = nnx.merge(graph, params)(batch["x"])
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  return jnp.stack(
    [
      cross_entropy(species, batch["species"]).mean(),
      cross_entropy(sex, batch["sex"]).mean(),
      jnp.mean((mass - batch["mass"]) ** 2),
    ]
  )


balancer = balancers.create(
  "igbv1+nashmtl",
  num_tasks=NUM_TASKS,
  steps_per_epoch=len(train_rows) // BATCH_SIZE,
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
generator = np.random.default_rng(1)
history = []
for epoch in range(EPOCHS):
  for batch_rows in generator.permutation(train_rows).reshape(-1, BATCH_SIZE):
    batch = {name: column[batch_rows] for name, column in data.items()}
    params, opt_state, state, losses = step(params, opt_state, state, batch)
    history.append(losses)
  if epoch % 20 == 0:
    print(f"epoch {epoch}: losses {history[-1]}, weights {state.loss.weights}")

# the model again, to use or to save
model = nnx.merge(graph, params)
species, sex, mass = model(data["x"][test_rows])
accuracy = {
  "species": float(np.mean(species.argmax(axis=1) == data["species"][test_rows])),
  "sex": float(np.mean(sex.argmax(axis=1) == data["sex"][test_rows])),
}
error = float(deviation[-1] * np.abs(mass - data["mass"][test_rows]).mean())
print(f"{len(test_rows)} penguins left out: accuracy {accuracy}, error {error:.0f} g")
