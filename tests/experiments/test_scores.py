"""A balancer that follows how far each task is from a net of its own."""

import numpy as np

from experiments import custom, nyuv2
from igb_jax.metrics import delta_m
from igb_jax.training.checkpoint import Checkpoints
from tests.experiments.custom_task import TASK
from tests.experiments.running import (
  exit_code,
  make_experiment,
  one_line,
  read_metrics,
  untimed,
)
from tests.experiments.test_nyuv2 import small as small_scenes

BASES = 0.5, 1.5, 90.0  # of two errors of the first task, an accuracy of the second


def test_pivrg_gets_the_validation_scores_of_each_task(tmp_path):
  task = tmp_path / "task.py"
  task.write_text(TASK.replace("BASES = None, None, None", f"BASES = {BASES}"))
  options = [f"--task={task}", "--batch-size=16", "--learning-rate=0.01"]

  def run(name, balancer, *more):
    arguments = [*options, f"--balancer={balancer}", f"--out={tmp_path / name}", *more]
    assert exit_code(custom.main, arguments) == 0
    return [*map(untimed, read_metrics(tmp_path / name))]

  lines = run("pivrg", "pivrg", "--epochs=3")
  # the scores of the first epoch, and what the second makes of them
  numbers = lines[0]["validation"]
  scores = [
    delta_m([numbers["mean error"], numbers["largest error"]], BASES[:2]),
    delta_m([numbers["accuracy"]], BASES[2:], higher_is_better=True),
  ]
  arguments = [*options, "--balancer=pivrg", "--epochs=2"]
  ready = make_experiment(custom, custom.parse_config(arguments))
  run("first", "pivrg", "--epochs=1")
  with Checkpoints(tmp_path / "first" / "checkpoints") as checkpoints:
    state, _ = checkpoints.restore_newest(ready.init_state()) or (None, None)
  for batch in ready.epoch_batches(1):
    state = ready.step(state, batch, scores=np.float32(scores))
  found = ready.evaluate(state, "validation").metrics
  np.testing.assert_allclose(
    [*found.values()], [*lines[1]["validation"].values()], 1e-5
  )

  # without scores, so in the first epoch, it is FairGrad
  fair = run("fairgrad", "fairgrad", "--epochs=2")
  assert lines[0]["validation"] == fair[0]["validation"]
  assert lines[1]["gradient_weights"] != fair[1]["gradient_weights"]

  assert run("first", "pivrg", "--epochs=3", "--resume") == lines


def test_scores_of_a_test_split_are_refused(tmp_path, capsys):
  arguments = [*small_scenes(tmp_path / "run"), "--balancer=pivrg", "--split=standard"]
  assert exit_code(nyuv2.main, arguments) == 2
  assert "no validation split, only a test split" in one_line(capsys.readouterr().err)
