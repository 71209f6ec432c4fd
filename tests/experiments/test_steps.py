"""Both experiments' training steps, with every balancer.

They lower for accelerators, and an epoch of them traces once and moves nothing that it
was not told to move.
"""

import re

import jax
import pytest
from rich.console import Console

from experiments import nyuv2, qm9
from igb_jax import balancers
from igb_jax.training import loop
from igb_jax.training.balancing import make_balancer, works_at_features
from igb_jax.training.config import RunConfig
from igb_jax.training.progress import TrainProgress
from igb_jax.training.step import init_state, make_train_step
from tests.experiments.molecule_runs import small as small_molecules
from tests.experiments.running import make_experiment
from tests.experiments.test_nyuv2 import small as small_scenes
from tests.needed_options import needed_flags

SPECS = [
  "igbv1+nashmtl",
  pytest.param("igbv2+mgda", marks=pytest.mark.slow),
  *(pytest.param(name, marks=pytest.mark.slow) for name in balancers.names()),
]


@pytest.fixture(scope="module")
def experiments(qm9_dir, tmp_path_factory):
  out = tmp_path_factory.mktemp("out") / "run"
  molecules = qm9.parse_config(small_molecules(qm9_dir, out))
  scenes = nyuv2.parse_config(small_scenes(out, "--dtype=bfloat16"))
  both = {
    "qm9": make_experiment(qm9, molecules),
    "nyuv2": make_experiment(nyuv2, scenes),
  }
  return {
    name: (experiment, next(iter(experiment.epoch_batches(0))))
    for name, experiment in both.items()
  }


def prepare(experiment, spec):
  """The step with a balancer, its state, and how often the losses were traced."""
  problem = experiment.problem
  needed = [needed_flags(name, len(problem.task_names)) for name in spec.split("+")]
  options = [option for flags in needed for option in flags[1:]]
  balancer = make_balancer(
    spec,
    [*options, *(["update_every=4"] if "nashmtl" in spec else [])],
    task_names=problem.task_names,
    steps_per_epoch=problem.steps_per_epoch,
  )
  at_features = works_at_features(RunConfig(balancer=spec))
  losses = problem.losses if at_features else problem.losses_of
  traces = []

  def losses_of(*args):
    traces.append(1)
    return losses(*args)

  variables = experiment.initial_variables
  step = make_train_step(
    losses_of,
    balancer,
    experiment.optimizer,
    trunk=problem.trunk if at_features else None,
    stateful=variables is not None,
    placement=experiment.devices.placement,
  )
  state = init_state(
    experiment.initial_params,
    variables=variables,
    balancer=balancer,
    optimizer=experiment.optimizer,
    plateau=experiment.problem.plateau,
    key=jax.random.key(0),
  )
  return step, experiment.devices.put_state(state), traces


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["qm9", pytest.param("nyuv2", marks=pytest.mark.slow)])
def test_no_float64_and_nothing_of_the_host(experiments, name, spec):
  experiment, batch = experiments[name]
  step, state, _ = prepare(experiment, spec)
  text = jax.export.export(step, platforms=["cuda", "tpu"])(state, batch).mlir_module()
  assert "f64" not in text
  called = set(re.findall(r"custom_call @([\w.$]+)", text))
  assert not [target for target in called if re.search("lapack|callback|cpu", target)]
  assert ("bf16" in text) == (name == "nyuv2")


def assert_finite(failed_step):
  assert failed_step == -1


@pytest.mark.parametrize(
  ("name", "spec"),
  [
    ("qm9", "igbv1+nashmtl"),
    pytest.param("nyuv2", "igbv1", marks=pytest.mark.slow),
    *(
      pytest.param(name, spec, marks=pytest.mark.slow)
      for name in ("qm9", "nyuv2")
      for spec in ("igbv1+nashmtl", "igbv2+mgda", *balancers.names())
      if (name, spec) not in {("qm9", "igbv1+nashmtl"), ("nyuv2", "igbv1")}
    ),
  ],
)
def test_an_epoch_neither_retraces_nor_moves_anything_unasked(experiments, name, spec):
  experiment, batch = experiments[name]
  step, state, traces = prepare(experiment, spec)
  console = Console(quiet=True)
  progress = TrainProgress(console, 2, experiment.problem.steps_per_epoch)
  state = step(state, batch)
  traced = len(traces)
  with jax.transfer_guard("disallow"):
    state, timing, done = loop.run_epoch(
      state,
      step,
      experiment.epoch_batches(1),
      1,
      0,
      lambda state, failed_step: assert_finite(failed_step),
      progress,
      lambda state, done: False,
    )
  assert done == experiment.problem.steps_per_epoch
  assert len(timing.per_step) > 0
  assert state.step == 1 + experiment.problem.steps_per_epoch
  assert len(traces) == traced
  assert step._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]
