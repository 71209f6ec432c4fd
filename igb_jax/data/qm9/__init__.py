"""QM9: 130,831 small molecules, their graphs and 11 quantum-chemical targets.

`load` returns the whole data set as arrays. The first call featurises the
molecules (`igb_jax.data.molecules`) on all cores and caches the result as
array_record files; later calls take about a second. `split` draws the test,
validation and training sets.

Reference: Ramakrishnan et al., "Quantum chemistry structures and properties of
134 kilo molecules", Scientific Data 1, 2014.
"""

from igb_jax.data.qm9.cache import Source, cache_folder, load
from igb_jax.data.qm9.dataset import NUM_MOLECULES, QM9, Split, split
from igb_jax.data.qm9.qm9pack import parse_elements, parse_positions
from igb_jax.data.qm9.targets import HARTREE, REPORT_SCALE, TARGETS, UNITS

__all__ = [
  "HARTREE",
  "NUM_MOLECULES",
  "QM9",
  "REPORT_SCALE",
  "TARGETS",
  "UNITS",
  "Source",
  "Split",
  "cache_folder",
  "load",
  "parse_elements",
  "parse_positions",
  "split",
]
