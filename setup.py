"""The packages of the wheel; pyproject.toml has everything else.

`experiments`, a folder beside igb_jax here, is installed as `igb_jax.experiments`: a
package of that name at the top of somebody's site-packages might be another's.
"""

from setuptools import find_packages, setup

setup(
  package_dir={"igb_jax.experiments": "experiments"},
  packages=[
    *find_packages(include=["igb_jax*"]),
    *(f"igb_jax.{name}" for name in find_packages(include=["experiments*"])),
  ],
)
