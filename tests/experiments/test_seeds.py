"""Several seeds in one vmapped step, against the same seeds one after another."""

import json
import signal

import jax
import numpy as np
import pytest

from experiments import nyuv2
from experiments import qm9 as experiment
from experiments.molecules import Molecules
from igb_jax.data import qm9
from igb_jax.training.experiment import Experiment, for_seed
from igb_jax.training.seeds import make_seeds_step
from tests.balancers.contract import LOSS
from tests.experiments.molecule_runs import run, saved, small, start, wait_for
from tests.experiments.running import exit_code, make_experiment, read_metrics, untimed
from tests.experiments.test_nyuv2 import small as small_scenes
from tests.needed_options import needed_flags

SEEDS = ["--seeds", "0", "3", "5"]
OPTIONS = {
  # learns within the few steps of this test
  "uw": ["--epochs=2"],
  "igbv2": ["--balancer-options=start_epoch=2", "--balancer-options=warmup_epochs=1"],
}


def assert_close(together: dict, alone: dict) -> None:
  """Checks that two JSON objects are alike, numbers up to rounding."""
  assert together.keys() == alone.keys()
  for name, value in together.items():
    numbers = [
      list(each.values()) if isinstance(each, dict) else each
      for each in (value, alone[name])
    ]
    words = all(isinstance(each, str | None) for each in np.ravel(numbers[0]))
    if words:
      assert value == alone[name]
    else:
      np.testing.assert_allclose(*numbers, rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("balancer", LOSS)
def test_seeds_at_once_are_the_runs_that_they_are_alone(balancer, qm9_dir, tmp_path):
  needed = needed_flags(balancer, len(qm9.TARGETS))
  options = [f"--balancer={balancer}", *needed, *OPTIONS.get(balancer, [])]
  out = tmp_path / "together"
  assert run(small(qm9_dir, out, *options, *SEEDS)) == 0
  for seed in (0, 5):
    alone = tmp_path / f"alone{seed}"
    assert run(small(qm9_dir, alone, *options, f"--seed={seed}")) == 0
    own = out / f"seed{seed}"
    for each in zip(read_metrics(own), read_metrics(alone), strict=True):
      assert_close(*map(untimed, each))
    summaries = [
      untimed(json.loads((path / "summary.json").read_text())) for path in (own, alone)
    ]
    assert summaries[0].pop("seeds_at_once") == [0, 3, 5]
    assert_close(*summaries)
    configs = [json.loads((path / "config.json").read_text()) for path in (own, alone)]
    assert {name for name in configs[0] if configs[0][name] != configs[1][name]} == {
      "out"
    }
  weights = [
    json.loads((out / f"seed{seed}" / "summary.json").read_text())["delta_m"]
    for seed in (0, 3, 5)
  ]
  assert len(set(weights)) == 3  # the seeds differ


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_seeds_of_scenes_at_once_are_the_runs_that_they_are_alone(tmp_path):
  out, alone = tmp_path / "together", tmp_path / "alone"
  # a learning rate at which rounding does not decide, see docs/reliability.md
  options = ["--balancer=igbv1", "--learning-rate=1e-5"]
  assert exit_code(nyuv2.main, small_scenes(out, *options, "--seeds", "0", "1")) == 0
  assert exit_code(nyuv2.main, small_scenes(alone, *options, "--seed=1")) == 0
  lines = read_metrics(out / "seed1"), read_metrics(alone)
  for together, separate in zip(*lines, strict=True):
    for name in ("losses", "weights"):
      np.testing.assert_allclose(
        list(together[name].values()), list(separate[name].values()), rtol=1e-3
      )
  assert (out / "seed1" / "plots" / "predictions.png").stat().st_size > 0


@pytest.mark.slow
def test_batches_of_other_shapes_are_taken_one_after_another(qm9_dir, tmp_path):
  arguments = small(qm9_dir, tmp_path, "--size-groups=3", "--batch-size=24")
  ready = make_experiment(experiment, experiment.parse_config(arguments))
  others = [ready, for_seed(ready, 1)]
  batches = [next(iter(each.epoch_batches(0))) for each in others]
  molecules = Molecules(ready.config, ready.devices)
  molecules.groups = molecules.groups.widest
  oversized = ready.devices.put_batch(molecules.train_batches(0, 0)[0])
  assert jax.tree.map(np.shape, oversized) != jax.tree.map(np.shape, batches[0])

  step = make_seeds_step(ready.step)

  def losses(*pair):
    states = [each.init_state() for each in others]
    stacked = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *states)
    return np.asarray(step(stacked, pair).sums.losses)

  np.testing.assert_allclose(
    losses(oversized, batches[1]), losses(batches[0], batches[1]), rtol=1e-5
  )


@pytest.mark.slow
def test_a_seed_that_fails_leaves_the_others_as_they_are(
  qm9_dir, tmp_path, monkeypatch, capsys
):
  out, whole = tmp_path / "run", tmp_path / "whole"
  options = "--epochs=2", *SEEDS
  assert run(small(qm9_dir, whole, *options)) == 0

  batches_of = Experiment.epoch_batches

  def spoilt(self, epoch, start=0):
    for batch in batches_of(self, epoch, start):
      if epoch == 1 and self.config.seed == 3:
        batch = batch._replace(targets=batch.targets * np.float32(np.nan))
      yield batch

  monkeypatch.setattr(Experiment, "epoch_batches", spoilt)
  assert run(small(qm9_dir, out, *options)) == 1
  errors = capsys.readouterr().err
  assert "seed 3: training stopped at step 5" in errors
  assert "seed 0" not in errors.partition("what was saved")[0]
  for seed in (0, 5):
    own, expected = out / f"seed{seed}", whole / f"seed{seed}"
    assert [*map(untimed, read_metrics(own))] == [*map(untimed, read_metrics(expected))]
    assert (own / "summary.json").exists()
  assert len(read_metrics(out / "seed3")) == 1
  assert not (out / "seed3" / "summary.json").exists()


@pytest.mark.slow
def test_killed_and_resumed_seeds_are_as_if_never_stopped(qm9_dir, tmp_path):
  out, whole = tmp_path / "run", tmp_path / "whole"
  options = ["--balancer=rlw", "--epochs=6", *SEEDS]
  assert run(small(qm9_dir, whole, *options)) == 0
  arguments = small(qm9_dir, out, *options)
  process = start(arguments)
  wait_for(process, lambda: max(saved(out), default=0) >= 10)
  process.kill()
  process.communicate()
  process = start([*arguments, "--resume"])
  wait_for(process, lambda: max(saved(out), default=0) >= 20)
  process.send_signal(signal.SIGTERM)
  process.communicate()
  assert process.returncode in (0, 143)  # it may have just ended
  assert run([*arguments, "--resume"]) == 0
  for seed in (0, 3, 5):
    own, expected = out / f"seed{seed}", whole / f"seed{seed}"
    assert [*map(untimed, read_metrics(own))] == [*map(untimed, read_metrics(expected))]
    summaries = [
      untimed(json.loads((path / "summary.json").read_text()))
      for path in (own, expected)
    ]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--seeds", "1", "1"], "--seeds must be distinct numbers of at least 0"),
    (["--seeds", "-1", "1"], "--seeds must be distinct numbers of at least 0"),
    (
      ["--seeds", "0", "1", "--balancer=igbv1+mgda"],
      "--seeds supports loss balancers only; igbv1+mgda",
    ),
    (["--seeds", "0", "1", "--devices=2"], "give --devices=1"),
  ],
)
def test_seeds_that_cannot_be_trained_at_once_are_refused(
  options, message, qm9_dir, tmp_path, capsys
):
  out = tmp_path / "run"
  assert run(small(qm9_dir, out, *options)) == 2
  assert message in capsys.readouterr().err.replace("\n", " ")
  assert not out.exists()
