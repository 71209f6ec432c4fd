"""What all tests and doctests share: how XLA compiles, and how long that is kept.

Most of what a test takes is compilation, so XLA's slow parts are left out: the same
programs to rounding, in less than half the time. Slow tests are compiled as a user's
programs are: `make test-slow` sets `XLA_FLAGS`, which is kept.

Every compiled function takes about ten memory mappings, of which Linux gives a process
65,530. So they are dropped at a module's end when there are many: kept to the end of
the suite they crashed a test process. They are also kept on disk, in a cache that all
test processes share, since many tests compile what others have compiled.

Tracing makes objects by the million, few of them garbage: looking for it at Python's
default intervals took a tenth of the time.

Tests that need the same compiled functions run in the same process: those of one
module, and those of one method, whatever their module. Modules that take long begin,
and methods, which are many and short, come last, so that no process waits for another.
"""

import gc
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_QUICKLY = (
  "--xla_backend_optimization_level=0",
  "--xla_cpu_parallel_codegen_split_count=1",
  "--xla_cpu_use_fusion_emitters=false",
  "--xla_llvm_disable_expensive_passes=true",
)
_CACHE = Path(__file__).parent / ".pytest_cache" / "jax"
os.environ.setdefault("XLA_FLAGS", " ".join(_QUICKLY))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import pytest

gc.set_threshold(50_000, 20, 20)

MANY_MAPPINGS = 20_000


def has_many_mappings() -> bool:
  """Whether compiled functions have taken much of what the process may map."""
  try:
    with open("/proc/self/maps") as mappings:
      return sum(1 for _ in mappings) > MANY_MAPPINGS
  except OSError:  # elsewhere than on Linux
    return True


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_functions() -> Iterator[None]:
  """Frees what modules compiled, and its memory mappings."""
  yield
  if has_many_mappings():
    jax.clear_caches()


METHOD = re.compile(
  r"tests/balancers/test_(gradient|loss|remembered)_\w+\.py::\w+\[(\w+)"
)


# by their time, the longest first
LONG = (
  "tests/experiments/test_devices.py",
  "tests/experiments/test_processes.py",
  "tests/experiments/test_qm9.py",
  "tests/experiments/test_compare.py",
  "tests/test_docs.py",
  "tests/experiments/test_resume.py",
  "tests/experiments/test_resume_folders.py",
  "tests/experiments/test_league.py",
  "tests/nets/test_mpnn.py",
  "tests/nets/test_segnet.py",
  "tests/nets/test_published_scene_nets.py",
  "tests/test_examples.py",
  "tests/training/test_gradient_step.py",
  "tests/training/test_gradient_step_forms.py",
  "tests/experiments/test_nyuv2.py",
  "tests/experiments/test_custom.py",
  "tests/data/test_nyuv2_cache.py",
  "tests/experiments/test_league_plan.py",
  "tests/experiments/test_league_cells.py",
  "tests/data/test_nyuv2.py",
  "tests/test_packaging.py",
  "tests/test_recipe.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
  """Has several processes begin with the modules that take long."""

  def place(item: pytest.Item) -> int:
    module = item.nodeid.partition("::")[0]
    if module in LONG:
      return LONG.index(module)
    return len(LONG) + bool(METHOD.match(item.nodeid))

  if hasattr(config, "workerinput"):  # of pytest-xdist
    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)  # there is none without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
  """Gives processes whole groups of tests; slow ones one by one."""
  from xdist.scheduler import LoadScopeScheduling

  class ByWhatIsCompiled(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
      if of_method := METHOD.match(nodeid):
        return of_method[2]
      return nodeid if config.option.markexpr == "slow" else nodeid.split("::")[0]

  if config.option.dist != "load":
    return None
  config.option.loadscopereorder = False  # the most tests are not the most time
  return ByWhatIsCompiled(config, log)
