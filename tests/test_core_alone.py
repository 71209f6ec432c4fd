"""What tests the core needs nothing beside it."""

import subprocess
import sys
from pathlib import Path

from tests.test_package import EXPERIMENT_PACKAGES

ROOT = Path(__file__).parents[1]
CORE = [
  "tests/balancers", "tests/test_task_grads.py", "tests/test_metrics.py",
  "igb_jax/balancers", "igb_jax/task_grads.py", "igb_jax/metrics.py",
]  # fmt: skip
STEP = [
  "tests/test_balanced_grads.py", "tests/test_balanced_grads_use.py",
  "tests/test_balanced_grads_memory.py", "igb_jax/balanced_grads.py",
]  # fmt: skip


def test_the_cores_tests_import_nothing_of_the_experiments():
  # flax itself imports orbax and rich where they are installed
  blocked = sorted(set(EXPERIMENT_PACKAGES) - {"orbax", "rich"})
  arguments = ["-q", "--collect-only", "-p", "no:xdist", *CORE, *STEP]
  code = (
    "import sys, pytest\n"
    f"for name in {blocked!r}: sys.modules[name] = None\n"
    f"sys.exit(pytest.main({arguments!r}))\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
  )
  assert result.returncode == 0, result.stdout[-3000:] + result.stderr
  assert "tests/balancers/test_gradient_contract.py" in result.stdout


def test_make_test_core_runs_them():
  recipe = (ROOT / "Makefile").read_text().partition("\ntest-core:")[2]
  lines = recipe.partition("\n\n")[0]
  assert all(path in lines for path in CORE)
