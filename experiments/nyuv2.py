"""Segmentation, depth and surface normals of indoor scenes, learnt together.

    python -m experiments.nyuv2 --balancer=igbv1                     (generated rooms)
    python -m experiments.nyuv2 --balancer=igbv1 --data-dir=DIR      (NYUv2)
    python -m experiments.nyuv2 --balancer=igbv1 --data-dir=DIR --preset=paper

Protocol of `paper`: Dai et al., "Improvable Gap Balancing for Multi-Task Learning", UAI
2023, section 5.1 (SegNet, 500 epochs, the 654 test images divided into validation and
test, the epoch with the best validation delta_m tested). That of `mtan`: Liu et al.,
"End-to-End Multi-Task Learning with Attention", CVPR 2019 (200 epochs, the mean of the
last ten epochs on all 654 test images). Without NYUv2 the scenes are generated rooms,
whose numbers compare with nobody's.
"""

import dataclasses
import json
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from igb_jax import balancers, scene_tasks
from igb_jax.data import nyuv2
from igb_jax.data.loader import prefetch
from igb_jax.data.part import WHOLE, Part
from igb_jax.data.rooms import Rooms
from igb_jax.data.scene_batches import (
  EvaluationBatches,
  SceneBatch,
  Scenes,
  TrainBatches,
)
from igb_jax.metrics import delta_m
from igb_jax.nets.mtan import MTAN
from igb_jax.nets.segnet import SegNet
from igb_jax.training import command_line, run
from igb_jax.training.balancing import (
  BalancingConfig,
  judged_metrics,
  make_balancer,
  works_at_features,
)
from igb_jax.training.checkpoint import CheckpointConfig
from igb_jax.training.devices import DeviceConfig, Devices, initialize
from igb_jax.training.experiment import Metric
from igb_jax.training.loggers import LoggersConfig
from igb_jax.training.loop import Evaluation
from igb_jax.training.scene_plots import plot_predictions
from igb_jax.training.schedule import halve_every
from igb_jax.training.seeds import SeedsConfig
from igb_jax.training.step import (
  NonFiniteConfig,
  Params,
  TrainState,
  Variables,
  init_state,
  make_train_step,
)

PROGRAM = f"python -m {__package__}.nyuv2"
# The base of delta_m, in the order and units of scene_tasks.METRICS: single-task runs
# of Table 1 of Dai et al., UAI 2023, as the published code has them.
SINGLE_TASK = (41.16, 65.7, 0.6074, 0.24, 24.49, 18.24, 31.92, 59.16, 70.56)
NETS = {"segnet": SegNet, "mtan": MTAN}
AVERAGED_EPOCHS = 10
NUM_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Config(
  BalancingConfig,
  DeviceConfig,
  CheckpointConfig,
  NonFiniteConfig,
  SeedsConfig,
  LoggersConfig,
):
  """Trains one network on segmentation, depth and normals of indoor scenes."""

  preset: Literal["quick", "paper", "mtan"] = "quick"
  """Where the other defaults come from: `quick` ends within minutes on two cores,
  `paper` is the protocol of the IGB paper, `mtan` the one most papers report."""
  balancer: Annotated[str, tyro.conf.arg(help=command_line.balancer_help())] = "igbv1"
  balancer_options: Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(help=command_line.options_help("depth")),
  ] = ()
  out: Path | None = None
  """Folder of the run's files; by default runs/ and a name made of data set, balancer,
  seed and time."""
  epochs: int = 10
  """Number of passes over the training scenes."""
  batch_size: int = 8
  """Scenes in a batch."""
  learning_rate: float = 1e-3
  """Initial learning rate of Adam."""
  halve_every: int = 100
  """Epochs after which the learning rate is halved, again and again."""
  model: Literal["segnet", "mtan"] = "segnet"
  """The network: SegNet, or SegNet with an attention branch a task (MTAN)."""
  width: float = 0.25
  """Factor on the network's numbers of channels; 1 is the published network."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """What the network computes in; parameters, statistics and losses are float32."""
  resolution: tuple[int, int] = (96, 128)
  """Height and width of the scenes, multiples of 32."""
  augment: bool = True
  """Whether training scenes are cropped, rescaled and flipped at random."""
  data_dir: Path | None = None
  """NYUv2: a folder of npy files, a folder of images, or nyu_depth_v2_labeled.mat; None
  for generated rooms."""
  cache_dir: Path | None = None
  """Folder of what is prepared from it, once; by default $IGB_JAX_DATA, else the
  platform's cache folder."""
  limit: int | None = None
  """Use only the first scenes of each part of NYUv2; None for all."""
  split: Literal["standard", "paper"] = "paper"
  """`paper` divides the test images into validation and test, and tests the epoch with
  the best validation; `standard` tests all, as the mean of the last ten epochs."""
  split_seed: int = 0
  """Seed of the division, and of the generated rooms; apart from `seed`, so that runs
  are comparable."""
  rooms: tuple[int, int, int] = (400, 64, 64)
  """Numbers of generated rooms for training, validation and testing."""
  stl_base: tuple[Path, ...] = ()
  """The base of delta_m: the summary.json of a run with --balancer=stl for each task,
  or one JSON file with all metrics; by default the paper's."""
  workers: int = 0
  """Processes that load and augment; 0 for a thread."""


PRESETS = {
  "quick": Config(),
  "paper": Config(
    preset="paper",
    epochs=500,
    batch_size=2,
    learning_rate=1e-4,
    width=1.0,
    resolution=(288, 384),
    rooms=(795, 197, 457),
    workers=2,
  ),
  "mtan": Config(
    preset="mtan",
    model="mtan",
    epochs=200,
    batch_size=2,
    learning_rate=1e-4,
    width=1.0,
    resolution=(288, 384),
    split="standard",
    rooms=(795, 197, 457),
    workers=2,
  ),
}


def parse_config(arguments: Sequence[str], program: str = PROGRAM) -> Config:
  """Reads the command line; fields that it does not name come from the preset.

  Args:
    arguments: without the program's name.
    program: what was started, as a command line has it.

  Returns:
    The configuration.

  Raises:
    SystemExit: an argument is wrong, or --help was asked for.

  Example:
    >>> parse_config(["--preset=mtan", "--seed", "3"]).epochs
    200
  """
  return command_line.parse_config(arguments, PRESETS, default="quick", prog=program)


def check_config(config: Config) -> None:
  """Checks what the other parts of a run do not check by themselves.

  Args:
    config: the configuration.

  Raises:
    ValueError: a number is out of its range; the message names the option.
  """
  at_least = {
    "epochs": 1,
    "batch_size": 1,
    "halve_every": 1,
    "seed": 0,
    "split_seed": 0,
    "workers": 0,
    "max_skips": 1,
  }
  command_line.check_at_least(config, at_least)
  for name in ("learning_rate", "width"):
    if not 0 < getattr(config, name) < float("inf"):
      raise ValueError(
        f"{command_line.option_of(name)} must be positive, got {getattr(config, name)}."
      )
  if any(size < 32 or size % 32 for size in config.resolution):
    raise ValueError(
      "--resolution must be two positive multiples of 32, height and width, got "
      f"{config.resolution}."
    )
  if config.limit is not None and config.data_dir is None:
    raise ValueError(
      "--limit is for --data-dir; --rooms says how many rooms there are."
    )
  if min(config.rooms) < 1:
    raise ValueError(f"--rooms must be at least 1 each, got {config.rooms}.")


def read_base(paths: Sequence[Path]) -> tuple[float, ...]:
  """The base of delta_m, in the order of `scene_tasks.METRICS`.

  Args:
    paths: JSON files, each a summary of a single-task run, from which the metrics of
      its task are taken, or an object with some of the metrics; none for the paper's.

  Raises:
    ValueError: a file is neither, or a metric has no positive number, or has two.
    OSError: a file cannot be read.
  """
  if not paths:
    return SINGLE_TASK
  base: dict[str, float] = {}
  for path in paths:
    found = _read_metrics(path)
    twice = sorted(set(base) & set(found))
    if twice:
      raise ValueError(f"--stl-base has {', '.join(twice)} twice, again in {path}.")
    base |= found
  bad = [name for name in scene_tasks.METRICS if not 0 < base.get(name, 0) < np.inf]
  if bad:
    raise ValueError(
      f"--stl-base {', '.join(map(str, paths))} must have a positive number for every "
      f"metric; wrong or missing: {', '.join(bad)}."
    )
  return tuple(base[name] for name in scene_tasks.METRICS)


def _read_metrics(path: Path) -> dict[str, float]:
  try:
    content = json.loads(path.read_text(), parse_int=float)  # whole ones may be huge
  except (ValueError, RecursionError) as error:
    raise ValueError(f"--stl-base {path} is no JSON file: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"--stl-base {path} must hold a JSON object.")
  names: Sequence[str] = scene_tasks.METRICS
  values = content
  if "balancer" in content:
    if content["balancer"] != "stl":
      raise ValueError(
        f"--stl-base {path} is of a run with --balancer={content['balancer']}, not stl."
      )
    values = content.get("test")
    stated = content.get("balancer_options")
    stated = stated if isinstance(stated, list) else []
    parts = [str(option).partition("=") for option in stated]
    options = {name: value for name, _, value in parts}
    numbered = {str(number): task for number, task in enumerate(scene_tasks.TASKS)}
    named = options.get("task", "")
    task = numbered.get(named, named)
    if task not in scene_tasks.TASKS or not isinstance(values, dict):
      raise ValueError(
        f"--stl-base {path} is no summary of a run of this experiment on one of the "
        f"tasks {', '.join(scene_tasks.TASKS)}."
      )
    names = scene_tasks.METRICS_OF_TASK[task]
  return {
    name: float(values[name])
    for name in names
    if isinstance(values.get(name), int | float) and values[name] is not True
  }


_TASK_OF_METRIC = {
  metric: task
  for task, metrics in scene_tasks.METRICS_OF_TASK.items()
  for metric in metrics
}


class NYUv2Experiment:
  """The scenes, the net and the balancer of one run, ready to train.

  Implements `igb_jax.training.experiment.Experiment`.
  """

  task_names = scene_tasks.TASKS

  def __init__(self, config: Config):
    """Prepares everything; whatever is wrong with the configuration is raised here.

    Args:
      config: the configuration.

    Raises:
      TypeError, ValueError: an option or a file is wrong.
      FileNotFoundError, OSError: the data cannot be had or stored.
    """
    check_config(config)
    self.config = config
    self.devices = Devices(config.devices, config.mesh)
    self.devices.check_batch_size(config.batch_size)
    base = read_base(config.stl_base)
    self._base = base
    self.base = "own runs" if config.stl_base else "paper"
    self._make_balancer(steps_per_epoch=1)  # wrong names fail before the data loads
    self.scenes: Scenes
    if config.data_dir is None:
      num_train, num_validation, num_test = config.rooms
      height, width = config.resolution
      self.dataset = "rooms"
      self.description = f"{sum(config.rooms)} generated rooms"
      self.scenes = Rooms(
        sum(config.rooms), seed=config.split_seed, height=height, width=width
      )
      self.split = nyuv2.split(num_train, num_validation, num_test, config.split)
      self.notice = (
        "These are generated rooms, not NYUv2: the numbers compare with no published "
        "ones. --data-dir trains on NYUv2."
      )
    else:
      self.dataset = "nyuv2"
      data = nyuv2.load(config.data_dir, config.cache_dir, limit=config.limit)
      self.scenes, self.description = data, data.description
      self.split = data.split(config.split, seed=config.split_seed)
      self.notice = self._what_differs(data)
    is_standard = config.split == "standard"
    self.averaged_epochs = AVERAGED_EPOCHS if is_standard else None
    self.metrics = tuple(
      Metric(name, unit, single_task, higher, task=_TASK_OF_METRIC[name])
      for name, unit, single_task, higher in zip(
        scene_tasks.METRICS,
        scene_tasks.UNITS,
        base,
        scene_tasks.HIGHER_IS_BETTER,
        strict=True,
      )
    )
    self._train = self._train_batches(config.seed)
    self.steps_per_epoch = self._train.steps_per_epoch

    self.net = NETS[config.model](width=config.width, dtype=jnp.dtype(config.dtype))
    self.balancer = self._make_balancer(self.steps_per_epoch)
    self.optimizer = optax.adam(config.learning_rate)
    self.plateau = halve_every(config.halve_every)
    at_features = works_at_features(config, config.balancer)
    self.step = make_train_step(
      self.losses_from if at_features else self.losses_of,
      self.balancer,
      self.optimizer,
      trunk=self.features_of if at_features else None,
      keep_task_grads=config.keep_task_grads,
      stateful=True,
      # generated rooms lack nothing
      present_of=scene_tasks.present if config.data_dir else None,
      max_skips=config.tolerated_skips,
      placement=self.devices.placement,
    )
    whole = self.devices.whole
    self._take_in = jax.jit(self._take_in_batch, donate_argnums=2, out_shardings=whole)
    self._predict = jax.jit(self._predict_batch, out_shardings=whole)
    images = jnp.zeros((1, *config.resolution, 3))
    self._init = jax.jit(lambda key: self.net.init(key, images, train=False))
    self._judged = judged_metrics(
      self.metrics,
      config.balancer,
      config.balancer_options,
      task_names=self.task_names,
    )
    self.set_seed(config.seed)

  def _train_batches(self, seed: int) -> TrainBatches:
    config = self.config
    return TrainBatches(
      self.scenes,
      self.split.train,
      config.batch_size,
      config.resolution,
      seed=seed,
      num_epochs=config.epochs,
      augmented=config.augment,
      part=self.devices.part,
    )

  def set_seed(self, seed: int) -> None:
    """Sets what depends on the seed anew.

    Args:
      seed: of the run.
    """
    self.config = dataclasses.replace(self.config, seed=seed)
    self._train = self._train_batches(seed)
    self._iterator: Generator[SceneBatch] | None = None
    self._next_batch = 0  # of the iterator, counted from the start of training
    params_key, self._balancer_key = jax.random.split(jax.random.key(seed))
    variables = dict(self._init(params_key))
    self.initial_params = variables.pop("params")
    self.initial_variables = variables

  def _what_differs(self, data: nyuv2.NYUv2) -> str | None:
    config = self.config
    differences = []
    if config.resolution != data.size:
      old, new = (
        f"{rows} x {columns}" for rows, columns in (data.size, config.resolution)
      )
      differences.append(f"scenes of {old} are resized to {new}")
    if config.limit is not None:
      differences.append(f"only {config.limit} scenes of each part are used")
    if "normals from depth" in data.description:
      differences.append("normals are derived from depth")
    if config.width != 1:
      differences.append(f"the network has {config.width:g} times the channels")
    if not differences:
      return None
    return f"The numbers do not compare with published ones: {', '.join(differences)}."

  def _make_balancer(self, steps_per_epoch: int) -> balancers.Balancer:
    return make_balancer(
      self.config.balancer,
      self.config.balancer_options,
      task_names=self.task_names,
      steps_per_epoch=steps_per_epoch,
    )

  def init_state(self) -> TrainState:
    """The state before the first step."""
    state = init_state(
      self.initial_params,
      variables=self.initial_variables,
      balancer=self.balancer,
      optimizer=self.optimizer,
      plateau=self.plateau,
      key=self._balancer_key,
    )
    return self.devices.put_state(state)

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[SceneBatch]:
    """The batches of an epoch from one on; the loader goes on from epoch to epoch."""
    first = epoch * self.steps_per_epoch + start
    if self._next_batch != first:
      self.close()
    if self._iterator is None:
      self._iterator = prefetch(self._train, workers=self.config.workers, start=first)
      self._next_batch = first
    for _ in range(start, self.steps_per_epoch):
      batch = next(self._iterator)
      self._next_batch += 1
      yield self.devices.put_batch(batch)

  def epoch_facts(self, epoch: int) -> dict[str, float]:
    """Nothing beyond what every run records."""
    del epoch
    return {}

  def run_facts(self) -> dict[str, Any]:
    """What the scenes are."""
    parts = self.split.train, self.split.validation, self.split.test
    return {
      "num_scenes": [len(part) for part in parts],
      "resolution": list(self.config.resolution),
      "model": self.config.model,
    }

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """The metrics over all pixels of a split, and delta_m.

    With "stl" delta_m is that of the task alone.

    Args:
      state: whose parameters and batch statistics are evaluated.
      split: which scenes; where there are none for validation, those for testing.
    """
    positions = getattr(self.split, split)
    if len(positions) == 0:
      positions = self.split.test
    total = jax.device_put(scene_tasks.SceneMetrics.zeros(), self.devices.whole)
    for batch in prefetch(self._evaluation_batches(positions, self.devices.part)):
      batch = self.devices.put_batch(batch)
      total = self._take_in((state.params, state.variables), batch, total)
    metrics = total.compute()
    score = delta_m(
      np.array(list(metrics.values()))[self._judged],
      np.array(self._base)[self._judged],
      np.array(scene_tasks.HIGHER_IS_BETTER)[self._judged],
    )
    return Evaluation(metrics=metrics, score=score)

  def close(self) -> None:
    """Ends the loader's processes."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def plot(self, folder: Path, state: TrainState) -> list[Path]:
    """Draws predictions.png: scenes of the test split beside what the net says.

    Args:
      folder: where it goes.
      state: whose predictions are shown.
    """
    spread = np.linspace(0, len(self.split.test) - 1, NUM_SHOWN).astype(int)
    shown = self._evaluation_batches(self.split.test[np.unique(spread)])
    scenes, predictions = [], []
    for index in range(len(shown)):
      batch = shown[index]
      prediction = jax.device_get(
        self._predict((state.params, state.variables), batch.image)
      )
      for place in np.flatnonzero(batch.mask):
        scenes.append(jax.tree.map(lambda leaf, p=place: leaf[p], batch))
        predictions.append(jax.tree.map(lambda leaf, p=place: leaf[p], prediction))
    path = folder / "predictions.png"
    plot_predictions(path, scenes, predictions, nyuv2.CLASS_NAMES)
    return [path]

  def _evaluation_batches(
    self, positions: np.ndarray, part: Part = WHOLE
  ) -> EvaluationBatches:
    return EvaluationBatches(
      self.scenes, positions, self.config.batch_size, self.config.resolution, part
    )

  def losses_of(
    self, params: Params, variables: Variables, batch: SceneBatch
  ) -> tuple[jax.Array, Variables]:
    """Task losses f32[3] of a batch, and the batch statistics after it."""
    prediction, updated = self.net.apply(
      {"params": params, **variables}, batch.image, train=True, mutable=list(variables)
    )
    return scene_tasks.losses(prediction, batch), dict(updated)

  def features_of(
    self, params: Params, variables: Variables, batch: SceneBatch
  ) -> tuple[Any, Variables]:
    """What the heads read, and the batch statistics after it."""
    features, updated = self.net.apply(
      {"params": params, **variables},
      batch.image,
      train=True,
      mutable=list(variables),
      method="features",
    )
    return features, dict(updated)

  def losses_from(
    self,
    params: Params,
    features: tuple[Any, Variables],
    variables: Variables,
    batch: SceneBatch,
  ) -> tuple[jax.Array, Variables]:
    """The task losses from what `features_of` returns."""
    del variables
    read, updated = features
    prediction: Any = self.net.apply({"params": params}, read, method="predict")
    return scene_tasks.losses(prediction, batch), updated

  def _predict_batch(self, net: tuple[Params, Variables], images: jax.Array) -> Any:
    params, variables = net
    return self.net.apply({"params": params, **variables}, images, train=False)

  def _take_in_batch(
    self,
    net: tuple[Params, Variables],
    batch: SceneBatch,
    total: scene_tasks.SceneMetrics,
  ) -> scene_tasks.SceneMetrics:
    prediction = self._predict_batch(net, jnp.asarray(batch.image))
    return total.plus(prediction, batch, jnp.asarray(batch.mask))


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
  """Runs the experiment that the command line describes, and exits.

  Args:
    arguments: of the command line; None for those of this process.
    program: what was started, as a command line has it.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  config = parse_config(arguments, program)
  run.main(
    lambda: NYUv2Experiment(config),
    config,
    program=program,
    arguments=arguments,
    join=lambda: initialize(config),
  )


if __name__ == "__main__":
  main()
