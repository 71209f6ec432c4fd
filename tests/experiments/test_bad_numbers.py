"""Missing labels and numbers that are not finite, from command line to files."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import nyuv2, qm9
from experiments.molecules import Molecules
from igb_jax.nets.mpnn import MPNN
from igb_jax.training.experiment import Experiment
from tests.experiments.molecule_runs import small as small_molecules
from tests.experiments.running import exit_code, make_experiment, read_metrics
from tests.experiments.test_nyuv2 import small as small_scenes
from tests.experiments.test_nyuv2 import write_images


@pytest.mark.slow
@pytest.mark.parametrize(
  ("share", "balancer"),
  [
    (0.2, "igbv1"),
    # in most batches of 4 some task has no label
    (0.6, "igbv1+nashmtl"),
    (0.6, "uw+mgda"),
    (0.6, "igbv2"),
  ],
)
def test_qm9_trains_without_some_labels(share, balancer, qm9_dir, tmp_path):
  out = tmp_path / "run"
  arguments = small_molecules(
    qm9_dir, out, f"--missing-labels={share}", f"--balancer={balancer}"
  )
  if share == 0.6:
    arguments += ["--batch-size=4", "--epochs=8"]
  assert exit_code(qm9.main, arguments) == 0
  lines = read_metrics(out)
  assert not any(line["skipped_steps"] for line in lines)
  first, last = (
    np.mean(list(line["losses"].values())) for line in lines[:: len(lines) - 1]
  )
  assert last < first
  if share == 0.6:
    assert sum(lines[0]["weights"].values()) < 10.5  # an absent task has none
  assert json.loads((out / "summary.json").read_text())["skipped_steps"] == 0


def test_missing_labels_are_those_of_the_split_and_of_training_alone(qm9_dir):
  def make(*more):
    arguments = [a for a in small_molecules(qm9_dir, None, *more) if "--out" not in a]
    ready = make_experiment(qm9, qm9.parse_config(arguments))
    return ready, Molecules(ready.config, ready.devices)

  (ready, lacking), (_, again), (_, other) = (
    make("--missing-labels=0.5", f"--seed={seed}", f"--split-seed={split_seed}")
    for seed, split_seed in ((0, 0), (1, 0), (0, 1))
  )
  np.testing.assert_array_equal(lacking.train_targets, again.train_targets)
  assert (np.isnan(lacking.train_targets) != np.isnan(other.train_targets)).any()
  assert not np.isnan(lacking.targets).any()
  assert make()[1].train_batches(0, 0)[0].known is None

  batch = lacking.train_batches(0, 0)[0]
  net = MPNN(11, ready.config.dim, ready.config.edge_dim)
  output = jax.jit(net.apply)({"params": ready.initial_params}, batch.graphs)
  errors = np.where(batch.known == 1, np.asarray(output) - batch.targets, np.nan)
  losses = jax.jit(ready.problem.losses_of)(ready.initial_params, batch)
  np.testing.assert_allclose(losses, np.nanmean(errors**2, axis=0), 1e-5)
  assert qm9.present_of(batch).all()
  batch.known[:, 3] = 0
  assert qm9.present_of(batch).tolist() == [k != 3 for k in range(11)]
  # standardised by the labels that are left
  train = lacking.train_targets[lacking.split.train]
  np.testing.assert_allclose(np.nanmean(train, axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(np.nanstd(train, axis=0, ddof=1), 1, 1e-4)


@pytest.mark.parametrize("share", ["-0.1", "1", "nan"])
def test_a_share_that_makes_no_sense_is_refused(share, qm9_dir, tmp_path, capsys):
  arguments = small_molecules(qm9_dir, tmp_path / "run", f"--missing-labels={share}")
  assert exit_code(qm9.main, arguments) == 2
  assert "--missing-labels must be at least 0 and below 1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["igbv1", "igbv1+nashmtl"])
def test_scenes_without_depth_or_labels_train(balancer, tmp_path):
  data, out = tmp_path / "data", tmp_path / "run"
  write_images(data)
  shape = (32, 64)
  nothing = {
    "label": np.full(shape, 255, np.uint8),
    "depth": np.zeros(shape, np.uint16),
  }
  for kind, name in (("label", "0001.png"), ("depth", "0002.png")):
    Image.fromarray(nothing[kind]).save(data / "train" / kind / name)
  arguments = [f"--data-dir={data}", f"--cache-dir={tmp_path / 'cache'}"]
  arguments += [f"--balancer={balancer}", "--batch-size=1", "--no-augment"]
  assert exit_code(nyuv2.main, small_scenes(out, *arguments)) == 0
  # of four steps an epoch one lacks labels, and one depth and so normals; the weights
  # of the base epochs are 1 where a task is there
  weights = read_metrics(out)[0]["weights"]
  assert weights == {"segmentation": 0.75, "depth": 0.75, "normal": 0.75}


class Damaged(Experiment):
  """Some batches of the second epoch hold a target that is not finite."""

  bad = (1, 2)

  def epoch_batches(self, epoch, start=0):
    batches = super().epoch_batches(epoch, start)
    for index, batch in enumerate(batches, start):
      if epoch == 1 and index in self.bad:
        batch = batch._replace(targets=batch.targets.at[-1, 4].set(np.nan))
      yield batch


def test_bad_steps_are_skipped_and_counted(qm9_dir, tmp_path, monkeypatch):
  monkeypatch.setattr("igb_jax.training.main.Experiment", Damaged)
  out = tmp_path / "run"
  arguments = small_molecules(qm9_dir, out, "--on-nonfinite=skip", "--max-skips=2")
  assert exit_code(qm9.main, arguments) == 0
  lines = read_metrics(out)
  assert [line["skipped_steps"] for line in lines] == [0, 2, 0]
  assert [line["num_steps"] for line in lines] == [5, 10, 15]
  assert json.loads((out / "summary.json").read_text())["skipped_steps"] == 2
  for line in lines:
    assert np.isfinite(list(line["losses"].values())).all()


@pytest.mark.parametrize(
  ("options", "message"),
  [
    pytest.param(
      [], r"stopped at step 6: .*for r2 \(loss nan\)\. The step", marks=pytest.mark.slow
    ),
    (
      ["--on-nonfinite=skip", "--max-skips=1"],
      r"stopped at step 7: .*r2 \(loss nan\) \(and 1 in a row were skipped before\)",
    ),
  ],
)
def test_a_stop_names_step_task_and_checkpoint(
  options, message, qm9_dir, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr("igb_jax.training.main.Experiment", Damaged)
  out = tmp_path / "run"
  assert exit_code(qm9.main, small_molecules(qm9_dir, out, *options)) == 1
  shown = capsys.readouterr().err.replace("\n", " ")
  assert re.search(message, shown)
  assert "The last checkpoint is that after 5 steps." in shown
  assert len(read_metrics(out)) == 1


def test_an_epoch_that_is_skipped_whole_ends_the_run(
  qm9_dir, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr("igb_jax.training.main.Experiment", Damaged)
  monkeypatch.setattr(Damaged, "bad", range(5))
  arguments = small_molecules(qm9_dir, tmp_path / "run", "--on-nonfinite=skip")
  assert exit_code(qm9.main, arguments) == 1
  assert "all 5 steps of epoch 2 were skipped" in capsys.readouterr().err
