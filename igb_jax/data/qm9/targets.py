"""The 11 targets of QM9, their units, and the energies that they leave out."""

import numpy as np

from igb_jax.data.molecules import ELEMENTS

TARGETS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""Names of the targets, in the order of `QM9.targets`."""

_UNITS = "D bohr^3 meV meV bohr^2 meV meV meV meV meV cal/mol/K"
UNITS = dict(zip(TARGETS, _UNITS.split(), strict=True))
"""Units in which errors are reported; `QM9.targets` has eV in place of meV."""

REPORT_SCALE = np.array([1000.0 if UNITS[name] == "meV" else 1.0 for name in TARGETS])
"""f64[11], an error in units of `QM9.targets` times this is in `UNITS`."""

HARTREE = 27.211386246
"""In eV."""

# In Hartree; H, C, N, O, F.
ATOM_ENERGIES_OF_TARGET = {
  "U0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
  "U": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
  "H": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
  "G": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
ATOM_ENERGIES = np.array(
  [ATOM_ENERGIES_OF_TARGET.get(name, [0.0] * len(ELEMENTS)) for name in TARGETS]
)
"""f64[11, 5], energies of the lone atoms, which atomisation energies leave out."""


def energies_in_ev(targets: np.ndarray) -> np.ndarray:
  """Converts those of f64[11], in the order of `TARGETS`, that are in Hartree."""
  return targets * np.where(REPORT_SCALE == 1, 1, HARTREE)
