"""`examples/qm9_by_hand.py` and the experiment take the same steps."""

import runpy
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from experiments import qm9
from tests.experiments.molecule_runs import small
from tests.experiments.running import make_experiment
from tests.molecules import MOLECULES

BY_HAND = Path(__file__).parents[2] / "examples" / "qm9_by_hand.py"


@pytest.mark.parametrize(
  "balancer", ["igbv1", pytest.param("igbv1+nashmtl", marks=pytest.mark.slow)]
)
def test_twenty_steps_have_the_same_losses(balancer, qm9_dir, tmp_path, capsys):
  by_hand = runpy.run_path(str(BY_HAND))
  data = by_hand["load"](
    qm9_dir,
    molecules=MOLECULES,
    validation_size=50,
    test_size=350,
    batch_size=24,
    num_groups=1,
  )
  found = by_hand["train"](
    data,
    epochs=4,
    balancer_name=balancer,
    schedule=lambda step: 0.01,
    dim=8,
    out=tmp_path / "params",
  )

  options = ["--epochs=4", "--test-size=350", f"--balancer={balancer}"]
  given = small(qm9_dir, tmp_path / "run", *options)
  ready = make_experiment(qm9, qm9.parse_config(given))
  state = ready.init_state()
  expected = []
  for epoch in range(4):
    for batch in ready.epoch_batches(epoch):
      before = np.asarray(state.sums.losses)
      state = ready.step(state, batch)
      expected.append(np.asarray(state.sums.losses) - before)
    score = ready.evaluate(state, "validation").score
    line = capsys.readouterr().out.splitlines()[epoch] if epoch == 0 else None
    if line is not None:
      assert line == f"epoch 1/4: validation delta_m {score:.1f}%"
  ready.close()
  assert len(found) == len(expected) == 20
  # single losses are differences of the sums
  np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)

  with ocp.StandardCheckpointer() as checkpointer:
    saved = checkpointer.restore((tmp_path / "params").absolute())
  assert jax.tree.structure(saved) == jax.tree.structure(state.params)
