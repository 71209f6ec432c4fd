"""What all tests and doctests share: how XLA compiles, and how long that is kept.

Most of what a test takes is compilation, so XLA's slow parts are left out: the same
programs to rounding, in less than half the time. Tests that run for minutes are
compiled as a user's programs are: `make test-slow` sets `XLA_FLAGS`, which is kept.

Every compiled function takes about ten memory mappings, of which Linux gives a process
65,530. So a module's are dropped when it ends: kept to the end of the suite they
crashed a test process. The slowest compilations are also kept on disk, in a cache that
all test processes share, as the experiments themselves do.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_QUICKLY = (
  "--xla_backend_optimization_level=0",
  "--xla_cpu_parallel_codegen_split_count=1",
  "--xla_cpu_use_fusion_emitters=false",
  "--xla_llvm_disable_expensive_passes=true",
)
_CACHE = Path(__file__).parent / ".pytest_cache" / "jax"
os.environ.setdefault("XLA_FLAGS", " ".join(_QUICKLY))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_functions() -> Iterator[None]:
  """Frees what a module compiled, and its memory mappings."""
  yield
  jax.clear_caches()
