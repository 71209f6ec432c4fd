"""The molecules that tests here use."""

from tests.molecules import molecules as molecules
from tests.molecules import qm9_dir as qm9_dir
