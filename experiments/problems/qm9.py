"""Eleven properties of small molecules: QM9 at a size that ends within seconds.

Those of the first 8,000 molecules of QM9 that have at most 16 atoms, and the graph
network of `experiments.qm9`, but narrow. Complete graphs of one capacity are rows like
any other array.

Reference: Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo
molecules", Scientific Data 2014; Navon et al., ICML 2022, for its eleven tasks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from igb_jax.data import graphs, qm9
from igb_jax.data.molecule_batches import MoleculeBatches
from igb_jax.nets.mpnn import MPNN
from igb_jax.training.array_task import ArrayTask
from igb_jax.training.problem import TaskMetric

from .base import Training

FIRST = 8_000  # molecules, in QM9's order, which is by size
CAPACITY = 16  # atoms
HELD_OUT = {"validation": 1_000, "test": 2_000}

TRAINING = Training(
  epochs=8,
  batch_size=32,
  learning_rates=(4e-3, 1e-2, 2e-2),
  judged_by="delta_m",
  # the mean of the training molecules
  trivial=(0.80, 0.77, 0.76, 0.81, 0.79, 0.79, 0.76, 0.76, 0.76, 0.76, 0.77),
  at_once=False,
)
# eleven backward passes a step are too slow for all
ENTRANTS = (
  *("ew", "rlw", "si", "uw", "dwa", "stch", "famo", "imtll", "gls", "igbv1", "igbv2"),
  *("mgda", "cagrad", "nashmtl", "pcgrad", "imtlg", "dbmtl"),
  *(f"{name}@features" for name in ("mgda", "cagrad", "nashmtl", "pcgrad", "imtlg")),
  *("igbv1+nashmtl@features", "ew@2", "ew@4"),
)


def load() -> dict[str, dict[str, np.ndarray]]:
  """The splits, drawn by a fixed seed: graphs as arrays, and standardised targets."""
  data = qm9.load(limit=FIRST)
  small = np.flatnonzero(data.num_atoms <= CAPACITY)
  order = np.random.default_rng(0).permutation(small)
  ends = np.cumsum([*HELD_OUT.values()])
  parts = dict(zip((*HELD_OUT, "train"), np.split(order, ends), strict=True))
  targets = data.targets.astype(np.float64)
  train = targets[parts["train"]]
  standardised = ((targets - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)

  def rows_of(positions: np.ndarray) -> dict[str, np.ndarray]:
    whole = graphs.SizeGroups(counts=(len(positions),), capacities=(CAPACITY,))
    [batch] = MoleculeBatches(data, positions, standardised, whole)
    [molecules] = batch.graphs
    fields: Any = {k: v for k, v in molecules._asdict().items() if v is not None}
    return {"targets": batch.targets} | fields

  return {split: rows_of(positions) for split, positions in parts.items()}


def graphs_of(rows: Any) -> list[jraph.GraphsTuple]:
  """The graphs of some rows, as the network takes them."""
  fields = {name: rows[name] for name in rows if name != "targets"}
  return [jraph.GraphsTuple(**fields, globals=None)]


def make_task() -> ArrayTask:
  """The molecules, split by a fixed seed, and the net."""
  splits: dict[str, Any] = load()
  net = MPNN(num_tasks=len(qm9.TARGETS), dim=24, edge_dim=16)
  shown = {name: leaf[:1] for name, leaf in splits["train"].items()}

  def trunk(params: Any, rows: Any) -> Any:
    return net.apply({"params": params}, graphs_of(rows), method="features")

  def errors_of(params: Any, features: Any, rows: Any) -> jax.Array:
    predictions: Any = net.apply({"params": params}, features, method="predict")
    return predictions - rows["targets"]

  def measures(params: Any, split: Any) -> jax.Array:
    return jnp.abs(errors_of(params, trunk(params, split), split)).mean(axis=0)

  return ArrayTask(
    name="qm9",
    task_names=qm9.TARGETS,
    metrics=[TaskMetric(name, "std", name) for name in qm9.TARGETS],
    **splits,
    init=lambda key: net.init(key, graphs_of(shown))["params"],
    losses=lambda *of: jnp.mean(errors_of(*of) ** 2, axis=0),
    measures=measures,
    trunk=trunk,
  )
