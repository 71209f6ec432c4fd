"""Segmentation, depth and surface normals of indoor scenes, learnt together.

    python -m experiments.nyuv2 --balancer=igbv1                     (generated rooms)
    python -m experiments.nyuv2 --balancer=igbv1 --data-dir=DIR      (NYUv2)
    python -m experiments.nyuv2 --balancer=igbv1 --data-dir=DIR --preset=paper

Protocol of `paper`: Dai et al., "Improvable Gap Balancing for Multi-Task Learning", UAI
2023, section 5.1 (SegNet, 500 epochs, the 654 test images divided into validation and
test, the epoch with the best validation delta_m tested). That of `mtan`: Liu et al.,
"End-to-End Multi-Task Learning with Attention", CVPR 2019 (200 epochs, the mean of the
last ten epochs on all 654 test images). Without NYUv2 the scenes are generated rooms,
whose numbers are not comparable with published results.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igb_jax import scene_tasks
from igb_jax.data import nyuv2
from igb_jax.data.scene_batches import EvaluationBatches, SceneBatch, TrainBatches
from igb_jax.nets.mtan import MTAN
from igb_jax.nets.segnet import SegNet
from igb_jax.training import config as command_line
from igb_jax.training.balancing import check_balancer
from igb_jax.training.devices import Devices
from igb_jax.training.main import main as train
from igb_jax.training.problem import Problem
from igb_jax.training.scene_plots import plot_predictions
from igb_jax.training.step import Params, Variables

from .scene_base import metrics_with_base
from .scenes import load_scenes

PROGRAM = f"python -m {__package__}.nyuv2"
NETS = {"segnet": SegNet, "mtan": MTAN}
AVERAGED_EPOCHS = 10
NUM_SHOWN = 6


@command_line.helpful
@dataclasses.dataclass(frozen=True)
class Config(command_line.RunConfig):
  """Trains one network on segmentation, depth and normals of indoor scenes."""

  preset: Literal["quick", "paper", "mtan"] = "quick"
  """Where the other defaults come from: `quick` takes minutes on two cores, `paper` is
  the protocol of the IGB paper, and `mtan` the one that most papers use."""
  batch_size: int = 8
  """Number of scenes in a batch."""
  halve_every: int = 100
  """Number of epochs after which the learning rate is halved, repeatedly."""
  model: Literal["segnet", "mtan"] = "segnet"
  """The network: SegNet, or SegNet with an attention branch per task (MTAN)."""
  width: float = 0.25
  """Factor on the network's channel counts; 1 is the published network."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the network; parameters, statistics and losses are always float32."""
  resolution: tuple[int, int] = (96, 128)
  """Height and width of the scenes, multiples of 32."""
  augment: bool = True
  """Whether training scenes are cropped, rescaled and flipped at random."""
  data_dir: Path | None = None
  """NYUv2: a folder of npy files, a folder of images, or nyu_depth_v2_labeled.mat; None
  for generated rooms."""
  cache_dir: Path | None = None
  """Folder of the data prepared from it; by default $IGB_JAX_DATA or, if that is not
  set, the platform's cache folder."""
  limit: int | None = None
  """Use only the first scenes of each part of NYUv2; None for all."""
  split: Literal["standard", "paper"] = "paper"
  """`paper` divides the test images into validation and test, and tests the epoch that
  is best in validation; `standard` tests on all of them, and reports the mean of the
  last ten epochs."""
  split_seed: int = 0
  """Seed of the division and of the generated rooms; separate from `seed`, so that runs
  are comparable."""
  rooms: tuple[int, int, int] = (400, 64, 64)
  """Numbers of generated rooms for training, validation and testing."""
  stl_base: tuple[Path, ...] = ()
  """The base of delta_m: the summary.json of a run with --balancer=stl for each task,
  or one JSON file with all metrics; by default the base is the paper's."""
  workers: int = 0
  """Number of processes that load and augment scenes; 0 uses a thread instead."""

  def check(self) -> None:
    """Checks what needs no data; ValueError names the option that is wrong."""
    super().check()
    minima = {"halve_every": 1, "split_seed": 0, "workers": 0}
    command_line.check_at_least(self, minima)
    if not 0 < self.width < float("inf"):
      raise ValueError(f"--width must be positive, got {self.width}.")
    if any(size < 32 or size % 32 for size in self.resolution):
      raise ValueError(
        "--resolution must be two positive multiples of 32, height and width, got "
        f"{self.resolution}."
      )
    if self.limit is not None and self.data_dir is None:
      raise ValueError(
        "--limit is for --data-dir; --rooms sets the number of generated rooms."
      )
    if min(self.rooms) < 1:
      raise ValueError(
        f"--rooms must be three numbers of at least 1, got {self.rooms}."
      )


_PAPER = Config(
  preset="paper",
  epochs=500,
  batch_size=2,
  learning_rate=1e-4,
  width=1.0,
  resolution=(288, 384),
  rooms=(795, 197, 457),
  workers=2,
)
PRESETS = {
  "quick": Config(),
  "paper": _PAPER,
  "mtan": dataclasses.replace(
    _PAPER, preset="mtan", model="mtan", epochs=200, split="standard"
  ),
}


def parse_config(arguments: Sequence[str], program: str = PROGRAM) -> Config:
  """Reads the command line; SystemExit where it is wrong, or after --help.

  Example:
    >>> parse_config(["--preset=mtan", "--seed", "3"]).epochs
    200
  """
  return command_line.parse_config(arguments, PRESETS, prog=program)


def features_of(
  net: Any, params: Params, variables: Variables, batch: SceneBatch
) -> tuple[Any, Variables]:
  """What the heads read, and the batch statistics after it."""
  features, updated = net.apply(
    {"params": params, **variables},
    batch.image,
    train=True,
    mutable=list(variables),
    method="features",
  )
  return features, dict(updated)


def losses_of(
  net: Any,
  params: Params,
  features: tuple[Any, Variables],
  variables: Variables,
  batch: SceneBatch,
) -> tuple[jax.Array, Variables]:
  """Task losses f32[3] of what `features_of` returns, and the statistics after it."""
  del variables
  read, updated = features
  prediction = net.apply({"params": params}, read, method="predict")
  return scene_tasks.losses(prediction, batch), updated


def make_problem(config: Config, devices: Devices) -> Problem:
  """The three tasks, and the network that learns them.

  Raises:
    TypeError, ValueError: an option or a file is wrong.
    FileNotFoundError, OSError: the data cannot be obtained or stored.
  """
  metrics = metrics_with_base(config.stl_base)
  check_balancer(config, scene_tasks.TASKS)
  source = load_scenes(config)
  net = NETS[config.model](width=config.width, dtype=jnp.dtype(config.dtype))
  images = jnp.zeros((1, *config.resolution, 3))

  def init(key: jax.Array) -> tuple[Params, Variables]:
    variables = dict(net.init(key, images, train=False))
    return variables.pop("params"), variables

  def predict(params: Params, variables: Variables, images: Any) -> Any:
    return net.apply({"params": params, **variables}, images, train=False)

  def add(net: Any, batch: SceneBatch, total: Any) -> Any:
    params, variables = net
    return total.plus(predict(params, variables, batch.image), batch, batch.mask)

  batches = functools.partial(
    TrainBatches,
    source.scenes,
    source.split.train,
    config.batch_size,
    config.resolution,
    num_epochs=config.epochs,
    augmented=config.augment,
    part=devices.part,
  )
  evaluation_batches = functools.partial(
    EvaluationBatches,
    source.scenes,
    batch_size=config.batch_size,
    resolution=config.resolution,
  )
  summed = devices.summed(add, scene_tasks.SceneMetrics.zeros())

  def measure(params: Params, variables: Variables, split: str) -> np.ndarray:
    positions = getattr(source.split, split)
    if len(positions) == 0:  # for validation, where all are for testing
      positions = source.split.test
    total = summed(
      (params, variables), evaluation_batches(positions, part=devices.part)
    )
    return np.array(list(total.compute().values()))

  jitted = jax.jit(predict, out_shardings=devices.whole)

  def plot(folder: Path, params: Params, variables: Variables) -> list[Path]:
    spread = np.linspace(0, len(source.split.test) - 1, NUM_SHOWN).astype(int)
    shown = evaluation_batches(source.split.test[np.unique(spread)])
    scenes, predictions = [], []
    for index in range(len(shown)):
      batch = shown[index]
      prediction = jax.device_get(jitted(params, variables, batch.image))
      for place in np.flatnonzero(batch.mask):
        scenes.append(jax.tree.map(lambda leaf, p=place: leaf[p], batch))
        predictions.append(jax.tree.map(lambda leaf, p=place: leaf[p], prediction))
    path = folder / "predictions.png"
    plot_predictions(path, scenes, predictions, nyuv2.CLASS_NAMES)
    return [path]

  parts = source.split.train, source.split.validation, source.split.test
  steps_per_epoch = batches(seed=0).steps_per_epoch
  return Problem(
    name=source.name,
    description=source.description,
    task_names=scene_tasks.TASKS,
    metrics=metrics,
    base="own runs" if config.stl_base else "paper",
    steps_per_epoch=steps_per_epoch,
    batches=lambda seed: batches(seed=seed),
    init=init,
    losses=functools.partial(losses_of, net),
    trunk=functools.partial(features_of, net),
    stateful=True,
    present=scene_tasks.present if config.data_dir else None,  # rooms lack nothing
    measure=measure,
    schedule=optax.piecewise_constant_schedule(
      1.0,
      {
        epoch * steps_per_epoch: 0.5
        for epoch in range(config.halve_every, config.epochs, config.halve_every)
      },
    ),
    averaged_epochs=AVERAGED_EPOCHS if config.split == "standard" else None,
    notice=source.notice,
    facts={
      "num_scenes": [len(part) for part in parts],
      "resolution": list(config.resolution),
      "model": config.model,
    },
    plot=plot,
    workers=config.workers,
  )


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
  """Runs the experiment of a command line, by default of this process, and exits."""
  train(make_problem, parse_config, arguments, program)


if __name__ == "__main__":
  main()
