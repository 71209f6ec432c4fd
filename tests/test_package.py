"""What the package promises about itself: light imports, types, no TensorFlow."""

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import experiments
import igb_jax

EXPERIMENT_PACKAGES = [
  "jraph", "tensorflow_datasets", "array_record", "rdkit", "orbax", "tyro", "rich",
  "matplotlib", "grain", "pandas", "jinja2", "filelock",
]  # fmt: skip


def run_python(code: str) -> str:
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=Path(__file__).parents[1],
  )
  return result.stdout


def test_the_core_needs_nothing_but_jax_flax_optax_and_numpy():
  # flax itself imports orbax and rich where they are installed
  blocked = sorted(set(EXPERIMENT_PACKAGES) - {"orbax", "rich"})
  code = (
    "import sys\n"
    f"for name in {blocked!r}: sys.modules[name] = None\n"
    "import jax.numpy as jnp\n"
    "from igb_jax import balancers\n"
    "b = balancers.create('igbv1', num_tasks=2, steps_per_epoch=1).loss\n"
    "print(b.update(jnp.ones(2), b.init())[0])\n"
  )
  assert run_python(code) == "[0. 0.]\n"


def test_tensorflow_is_never_imported():
  code = (
    "import sys\n"
    "import experiments.qm9\n"
    "from igb_jax.data import _tfds_qm9\n"
    "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules)"
  )
  assert run_python(code) == "True False\n"


def test_declares_its_types_and_version():
  assert (Path(igb_jax.__file__).parent / "py.typed").exists()
  assert importlib.metadata.version("igb-jax") == igb_jax.__version__


def test_the_command_is_installed(capsys):
  (command,) = importlib.metadata.entry_points(group="console_scripts", name="igb-jax")
  command.load()(["--version"])
  assert capsys.readouterr().out == f"igb-jax {igb_jax.__version__}\n"


@pytest.mark.parametrize("name", ["qm9", "cli", "comparison.child"])
def test_the_experiments_are_installed_below_the_package(name):
  spec = importlib.util.find_spec(f"igb_jax.experiments.{name}")
  assert spec is not None
  path = Path(experiments.__file__).parent / name.replace(".", "/")
  assert spec.origin == f"{path}.py"


def imported_modules(source: Path) -> set[str]:
  """Every module that a file imports, also inside functions."""
  modules = set()
  for node in ast.walk(ast.parse(source.read_text())):
    if isinstance(node, ast.Import):
      modules |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      modules |= {f"{node.module}.{alias.name}" for alias in node.names}
  return modules


@pytest.mark.parametrize("layer", ["balancers", "nets", "data", "training"])
def test_arrows_point_one_way(layer):
  """Experiments -> training -> {balancers, nets, data, metrics}, and never back."""
  forbidden = ["experiments", "igb_jax.experiments"]
  forbidden += {
    "balancers": ["igb_jax.nets", "igb_jax.data", "igb_jax.training"],
    "nets": ["igb_jax.balancers", "igb_jax.training"],
    "data": ["igb_jax.balancers", "igb_jax.nets", "igb_jax.training"],
    "training": [],
  }[layer]
  sources = list((Path(igb_jax.__file__).parent / layer).rglob("*.py"))
  assert sources
  for source in sources:
    for module in imported_modules(source):
      assert not module.startswith(tuple(forbidden)), f"{source} imports {module}"


def test_balancers_import_only_jax_flax_and_optax():
  allowed = {"jax", "flax", "optax", *sys.stdlib_module_names}
  ours = ("igb_jax.balancers", "igb_jax.layers")
  for source in (Path(igb_jax.__file__).parent / "balancers").rglob("*.py"):
    for module in imported_modules(source):
      assert module.partition(".")[0] in allowed or module.startswith(ours), (
        f"{source} imports {module}"
      )
