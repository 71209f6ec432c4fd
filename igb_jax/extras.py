"""What to say where a package of the extra `experiments` is not installed."""

INSTALL = "pip install 'igb-jax[experiments]'"


def missing_package(name: str | None) -> str:
  """A sentence with the command that installs what is missing.

  Args:
    name: of the module that cannot be imported.

  Example:
    >>> missing_package("jraph.utils")[:22]
    'jraph is not installed'
  """
  package = (name or "a package").partition(".")[0]
  in_checkout = INSTALL.replace("igb-jax", ".").replace("install", "install -e")
  return (
    f"{package} is not installed, which the experiments need: {INSTALL}, or "
    f"{in_checkout} in a checkout."
  )
