"""What is built, what it holds, and how it fares where nobody has the checkout."""

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import igb_jax
from tests.making import made_once

pytestmark = pytest.mark.builds

ROOT = Path(__file__).parents[1]
USER_PROGRAM = ROOT / "tests" / "typing" / "user_program.py"
IN_SDIST = ["igb_jax", "experiments", "pyproject.toml", "setup.py", "README.md"]
# what a mistake could bring in beside them
BESIDE = ["MANIFEST.in", "LICENSE", "tests", "benchmarks", "examples", "conftest.py"]

# Neither data nor plots, checkpoints or command lines. (flax itself imports rich.)
NOT_IN_CORE = {
  "aiohttp", "array_record", "equinox", "grain", "h5py", "jinja2", "jraph",
  "matplotlib", "orbax", "pandas", "PIL", "plotnine", "rdkit", "scipy", "sklearn",
  "tensorboard", "tensorboardX", "tensorflow", "tensorflow_datasets", "tensorstore",
  "torch", "tyro", "wandb",
}  # fmt: skip
EXTRAS = importlib.metadata.metadata("igb-jax").get_all("Provides-Extra") or []
# gigabytes that are for one kind of machine, or are compared with and never imported
ONLY_RESOLVED = {"cuda", "tpu", "bench", "all"}


PYTHONS = [
  line.rpartition(" ")[2]
  for line in importlib.metadata.metadata("igb-jax").get_all("Classifier") or []
  if re.search(r"Python :: 3\.\d+$", line)
]


def run(*command: str | Path, **options) -> str:
  """Standard output of a command, which must succeed."""
  result = subprocess.run(
    [str(part) for part in command], capture_output=True, text=True, **options
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


class Distributions(NamedTuple):
  sdist: Path
  wheel: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
  """Sdist and the wheel made of it, from a copy without what earlier builds left."""

  def make(source: Path) -> Path:
    for name in IN_SDIST + BESIDE:
      if (ROOT / name).is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "golden")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
      else:
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    return source / "dist"

  folder = made_once("distributions", make, tmp_path_factory)
  return Distributions(next(folder.glob("*.tar.gz")), next(folder.glob("*.whl")))


class UserEnvironment(NamedTuple):
  python: Path
  site_packages: Path

  @classmethod
  def of(cls, folder: Path) -> "UserEnvironment":
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return cls(python, Path(run(python, "-c", code).strip()))

  @property
  def variables(self) -> dict[str, str]:
    return os.environ | {
      "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
    }


@pytest.fixture(scope="session")
def user(
  distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> UserEnvironment:
  """An environment with the wheel, and what else is installed here behind it."""

  def make(folder: Path) -> Path:
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    site_packages = UserEnvironment.of(folder).site_packages
    with zipfile.ZipFile(distributions.wheel) as wheel:
      wheel.extractall(site_packages)
    # without the hook of the editable installation, which runs from a .pth file there
    (site_packages / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder

  return UserEnvironment.of(made_once("environment", make, tmp_path_factory))


def sources(folder: str) -> set[str]:
  """The files of a package in the checkout, relative to it."""
  return {
    path.relative_to(ROOT / folder).as_posix()
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
  }


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(distributions):
  with zipfile.ZipFile(distributions.wheel) as wheel:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    licence = [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
  expected = {f"igb_jax/{name}" for name in sources("igb_jax")}
  expected |= {f"igb_jax/experiments/{name}" for name in sources("experiments")}
  assert names == expected
  assert licence
  assert {
    "igb_jax/py.typed",
    "igb_jax/data/nyuv2_tables.json",
    "igb_jax/experiments/comparison/report.html.jinja",
    "igb_jax/experiments/comparison/published.json",
  } <= names


def test_the_sdist_holds_what_the_wheel_is_built_from_and_no_more(distributions):
  with tarfile.open(distributions.sdist) as sdist:
    names = {name.partition("/")[2] for name in sdist.getnames()}
  top = {name.partition("/")[0] for name in names if name}
  generated = {"PKG-INFO", "setup.cfg", "igb_jax.egg-info"}
  assert top == {*IN_SDIST, "LICENSE", "MANIFEST.in", *generated}


def test_descriptions_render_and_metadata_are_valid(distributions):
  run(sys.executable, "-m", "twine", "check", "--strict", *distributions)


def test_metadata_say_what_ci_runs(distributions):
  with zipfile.ZipFile(distributions.wheel) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
  assert metadata["Name"] == "igb-jax"
  assert metadata["Version"] == igb_jax.__version__
  assert metadata["Description-Content-Type"] == "text/markdown"
  classifiers = "\n".join(metadata.get_all("Classifier") or [])
  versions = re.findall(r"Python :: (3\.\d+)", classifiers)
  assert versions == PYTHONS
  assert metadata["Requires-Python"] == f">={versions[0]}"
  workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
  matrix = re.search(r"python: \[(.*)\]", workflow)
  assert matrix
  assert re.findall(r'"(.*?)"', matrix[1]) == versions


def test_every_target_of_the_workflow_is_in_the_makefile():
  workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
  targets = re.findall(r"[\w-]+", " ".join(re.findall(r" target: (.*)", workflow)))
  assert {*targets} == {"test", "docs", "test-lowest", "test-slow"}
  makefile = (ROOT / "Makefile").read_text()
  for target in targets:
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_imports_outside_the_checkout(user, tmp_path):
  code = (
    "import igb_jax, importlib.util as util\n"
    "print(igb_jax.__file__)\n"
    "print(util.find_spec('igb_jax.experiments').origin)\n"
    "print(util.find_spec('experiments'))\n"
  )
  core, experiments, top = run(user.python, "-c", code, cwd=tmp_path).splitlines()
  assert Path(core) == user.site_packages / "igb_jax" / "__init__.py"
  assert Path(experiments).is_relative_to(user.site_packages)
  assert top == "None"


def test_the_core_imports_no_package_for_data_plots_or_checkpoints():
  code = "import sys, igb_jax; print(*{n.partition('.')[0] for n in sys.modules})"
  imported = set(run(sys.executable, "-c", code, cwd=ROOT).split())
  assert "igb_jax" in imported
  assert not imported & NOT_IN_CORE


def test_the_import_takes_under_a_second_and_a_half_of_processor_time():
  """A busy machine stretches the time of a clock, which is not tested."""
  code = "import time, igb_jax; print(time.process_time())"
  times = []
  for _ in range(5):
    times.append(float(run(sys.executable, "-c", code, cwd=ROOT)))
    if times[-1] < 1.5:
      break
  assert min(times) < 1.5, times


@pytest.mark.slow
def test_a_users_program_is_typed_strictly_and_runs(user, tmp_path):
  program = tmp_path / USER_PROGRAM.name
  shutil.copy(USER_PROGRAM, program)
  assert program.read_text().startswith("# pyright: strict")
  run(
    sys.executable, "-m", "pyright", "--pythonpath", user.python, program, cwd=tmp_path
  )
  run(user.python, "-W", "error", program, cwd=tmp_path)


@pytest.mark.slow
def test_the_types_of_the_core_are_complete(user, tmp_path):
  """Every public symbol of the core has a known type, declared or plain to infer."""
  result = subprocess.run(
    [sys.executable, "-m", "pyright", "--verifytypes", "igb_jax", "--ignoreexternal"],
    capture_output=True,
    text=True,
    env=user.variables,
    cwd=tmp_path,
  )
  score = re.search(r"Type completeness score: ([\d.]+)%", result.stdout)
  assert score, result.stdout + result.stderr
  assert float(score[1]) > 90
  applied = ("experiments/", "training/", "nets/", "data/", "scene_tasks.py")
  gaps = [
    line
    for line in result.stdout.splitlines()
    if " - error" in line and not line.partition("/igb_jax/")[2].startswith(applied)
  ]
  assert not gaps


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
  "versions", [["--constraint", "constraints.txt"], ["--resolution", "lowest-direct"]]
)
def test_there_are_wheels_for_every_python(python, versions):
  """Of what tests run with, but for promise, which is pure Python without a wheel."""
  command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"]
  wheels = ["--only-binary", ":all:", "--no-binary", "promise"]
  command += ["--extra", "test", "--python-version", python, *wheels, *versions]
  assert "jax==" in run(*command, cwd=ROOT)


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_installs_with_every_extra(extra, distributions, tmp_path):
  """In a fresh environment; what is for other machines is only resolved."""
  uv = [sys.executable, "-m", "uv"]
  environment = tmp_path / "environment"
  run(*uv, "venv", "--python", sys.executable, environment)
  python = environment / "bin" / "python"
  requirement = f"igb-jax[{extra}] @ {distributions.wheel.as_uri()}"
  install = [*uv, "pip", "install", "--python", python, requirement]
  if extra in ONLY_RESOLVED:
    run(*install, "--dry-run", cwd=tmp_path)
    return
  run(*install, cwd=tmp_path)
  run(*uv, "pip", "check", "--python", python)
  code = "import igb_jax; print(igb_jax.__file__)"
  assert str(environment) in run(python, "-c", code, cwd=tmp_path)
  if extra in ("experiments", "examples", "test"):
    for name in ("qm9", "nyuv2", "compare"):
      module = f"igb_jax.experiments.{name}"
      assert "--out" in run(python, "-m", module, "--help", cwd=tmp_path)
