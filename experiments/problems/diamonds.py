"""Four tasks of two kinds from a table: the price and the grades of diamonds.

    task=experiments/problems/diamonds.py
    python -m experiments.custom --task=$task --balancer=igbv1
    python -m experiments.compare --task=$task --balancers=ew,si,igbv1

From a stone's weight and dimensions one net learns its price, and how it was graded for
cut, colour and clarity. The 53,940 diamonds come in the package plotnine; 23 are left
out, of which a dimension is missing (0 mm) or impossible (above 30 mm).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plotnine.data import diamonds

from igb_jax.training.array_task import ArrayTask, TaskMetric

from .base import Training

FEATURES = ["carat", "depth", "table", "x", "y", "z"]
CLASSES = {"cut": 5, "color": 7, "clarity": 8}
WIDTH = 32

TRAINING = Training(
  epochs=20,
  batch_size=512,
  learning_rates=(1e-2, 3e-2, 1e-1),
  judged_by="delta_m",
  trivial=(86.5, 38.9, 21.1, 23.7),  # the mean price, the most frequent grades
)

trunk_net = nn.Sequential([nn.Dense(WIDTH), nn.relu, nn.Dense(WIDTH), nn.relu])
heads_net = nn.Dense(1 + sum(CLASSES.values()))


def init(key):
  """The parameters, of a trunk and a layer of heads."""
  keys = jax.random.split(key)
  return {
    "shared": trunk_net.init(keys[0], jnp.zeros((1, len(FEATURES))))["params"],
    "heads": heads_net.init(keys[1], jnp.zeros((1, WIDTH)))["params"],
  }


def trunk(params, batch):
  """What the tasks share: f32[B, WIDTH]."""
  return trunk_net.apply({"params": params["shared"]}, batch["features"])


def predict(params, shared):
  """Log prices [B], and for each grade the logits [B, classes]."""
  outputs = jnp.asarray(heads_net.apply({"params": params["heads"]}, shared))
  price, *logits = jnp.split(outputs, np.cumsum([1, *CLASSES.values()])[:-1], axis=1)
  return price[:, 0], dict(zip(CLASSES, logits, strict=True))


def load():
  """The columns of the table as arrays of 53,917 rows."""
  size = diamonds[["x", "y", "z"]]
  stones = diamonds[((size > 0) & (size < 30)).all(axis=1)]
  return {
    "features": stones[FEATURES].to_numpy(np.float32),
    "price": np.log(stones["price"].to_numpy(np.float32)),
    **{name: stones[name].cat.codes.to_numpy(np.int32) for name in CLASSES},
  }


def make_task() -> ArrayTask:
  """The data, split by a fixed seed, and the net."""
  columns = load()
  order = np.random.default_rng(0).permutation(len(columns["price"]))
  parts = np.split(order, [int(0.8 * len(order)), int(0.9 * len(order))])
  scale = {}
  for name in ("features", "price"):  # standardised by the training rows
    train = columns[name][parts[0]]
    scale[name] = train.std(axis=0)
    columns[name] = (columns[name] - train.mean(axis=0)) / scale[name]
  train, validation, test = (
    {name: column[rows] for name, column in columns.items()} for rows in parts
  )

  def losses(params, shared, batch):
    price, logits = predict(params, shared)
    entropies = [
      optax.softmax_cross_entropy_with_integer_labels(logits[name], batch[name]).mean()
      for name in CLASSES
    ]
    return jnp.stack([jnp.mean((price - batch["price"]) ** 2), *entropies])

  def measures(params, split):
    price, logits = predict(params, trunk(params, split))
    error = scale["price"] * jnp.mean(jnp.abs(price - split["price"]))  # of log USD
    accuracies = [jnp.mean(logits[n].argmax(axis=1) == split[n]) for n in CLASSES]
    return 100 * jnp.stack([error, *accuracies])

  return ArrayTask(
    name="diamonds",
    task_names=("price", *CLASSES),
    # the bases: --balancer=stl on each task, otherwise by default, mean of three seeds
    metrics=(
      TaskMetric("price error", "%", "price", base=18.8),
      TaskMetric("cut accuracy", "%", "cut", higher_is_better=True, base=75.4),
      TaskMetric("color accuracy", "%", "color", higher_is_better=True, base=23.2),
      TaskMetric("clarity accuracy", "%", "clarity", higher_is_better=True, base=28.6),
    ),
    train=train,
    validation=validation,
    test=test,
    init=init,
    losses=losses,
    measures=measures,
    trunk=trunk,
  )
