"""What all tests and doctests share: what was compiled, and how long it is kept.

Every compiled function takes about ten memory mappings, of which Linux gives a process
65,530. So a module's are dropped when it ends: kept to the end of the suite they
crashed a test process. The slowest compilations are also kept on disk, in a cache that
all test processes share, as the experiments themselves do.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_CACHE = Path(__file__).parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_functions() -> Iterator[None]:
  """Frees what a module compiled, and its memory mappings."""
  yield
  jax.clear_caches()
