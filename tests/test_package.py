"""What the package promises about itself: light imports, types, no TensorFlow."""

import ast
import importlib.metadata
import importlib.util
import itertools
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
    "from igb_jax.data import _tfds\n"
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


PACKAGE = Path(igb_jax.__file__).parent
# what a part of the package may not import, beside the experiments
ABOVE = {
  "balancers": ["nets", "data", "training", "diagnosis", "metrics", "scene_tasks"],
  "nets": ["balancers", "data", "training", "diagnosis"],
  "data": ["balancers", "nets", "training", "diagnosis"],
  "training": [],
  "layers": ["balancers", "nets", "data", "training", "diagnosis"],
  "metrics": ["balancers", "nets", "data", "training", "diagnosis"],
  "scene_tasks": ["balancers", "nets", "data", "training", "diagnosis"],
  "task_grads": ["nets", "data", "training", "diagnosis"],
  "balanced_grads": ["nets", "data", "training", "diagnosis"],
  "rep_norms": ["nets", "data", "training", "diagnosis"],
  "pull_backs": ["nets", "data", "training", "diagnosis", "balanced_grads"],
  "_hints": ["nets", "data", "training"],
  "diagnosis": ["nets", "data", "training"],
  "extras": ["balancers", "nets", "data", "training", "diagnosis"],
  "__main__": ["balancers", "nets", "data", "training", "diagnosis"],
  "__init__": ["nets", "data", "training"],
}


def imported_modules(source: Path, package: str) -> set[str]:
  """Every module that a file of a package imports, also inside functions."""
  modules = set()
  for node in ast.walk(ast.parse(source.read_text())):
    if isinstance(node, ast.Import):
      modules |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      name = f"{'.' * node.level}{node.module or ''}"
      module = importlib.util.resolve_name(name, package)
      modules |= {f"{module}.{alias.name}" for alias in node.names}
  return modules


def imports(part: str) -> list[tuple[Path, str]]:
  """Every file of a part of the package, with each module that it imports."""
  path = PACKAGE / part
  sources = [*path.rglob("*.py")] if path.is_dir() else [path.with_suffix(".py")]
  assert sources
  found = []
  for source in sources:
    package = ".".join(source.parent.relative_to(PACKAGE.parent).parts)
    found += [(source, module) for module in imported_modules(source, package)]
  return found


def test_relative_imports_are_resolved(tmp_path):
  source = tmp_path / "module.py"
  source.write_text(
    "import a.b\nfrom . import c\nfrom ..d import e\nfrom f import g\n"
    "def function():\n  from .h import i, j\n"
  )
  expected = {"a.b", "x.y.c", "x.d.e", "f.g", "x.y.h.i", "x.y.h.j"}
  assert imported_modules(source, "x.y") == expected


def test_every_part_of_the_package_is_in_a_layer():
  parts = {path.stem for path in PACKAGE.glob("*.py")}
  parts |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
  assert parts == ABOVE.keys()


@pytest.mark.parametrize("part", ABOVE)
def test_arrows_point_one_way(part):
  """Experiments -> training -> {balancers, nets, data, metrics}, and never back."""
  forbidden = {"experiments", *(f"igb_jax.{above}" for above in ABOVE[part])}
  for source, module in imports(part):
    inside = module.replace("igb_jax.experiments", "experiments", 1)
    parents = {inside, *itertools.accumulate(inside.split("."), "{}.{}".format)}
    assert not parents & forbidden, f"{source} imports {module}"


def test_balancers_import_only_jax_flax_and_optax():
  allowed = {"jax", "flax", "optax", *sys.stdlib_module_names}
  ours = ("igb_jax.balancers", "igb_jax.layers")
  for source, module in imports("balancers"):
    assert module.partition(".")[0] in allowed or module.startswith(ours), (
      f"{source} imports {module}"
    )
