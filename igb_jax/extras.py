"""What to say where a package of the extra `experiments` is not installed."""

INSTALL = "pip install 'igb-jax[experiments]'"
IN_CHECKOUT = INSTALL.replace("igb-jax", ".").replace("install", "install -e")
EXIT_MISSING = 2  # bad input, as in training.run, which needs the packages itself

# what is imported of it, by the names that import has for its packages
PACKAGES = frozenset(
  {"PIL", "absl", "array_record", "docstring_parser", "filelock", "grain", "h5py"}
  | {"jinja2", "jraph", "matplotlib", "orbax", "platformdirs", "plotnine", "qm9pack"}
  | {"rdkit", "rich", "scipy", "sklearn", "tensorflow_datasets", "tyro"}
)


def is_of_extra(name: str | None) -> bool:
  """Whether a module is of a package that the extra installs.

  Another one that is missing is somebody else's, or a mistake of ours, and an error
  whose traceback is needed.

  Example:
    >>> is_of_extra("jraph.utils"), is_of_extra("igb_jax.utils")
    (True, False)
  """
  return _package(name) in PACKAGES


def missing_package(name: str | None) -> str:
  """A sentence with the command that installs what is missing.

  Example:
    >>> missing_package("jraph.utils")[:22]
    'jraph is not installed'
  """
  return (
    f"{_package(name)} is not installed, which the experiments need: {INSTALL}, or "
    f"{IN_CHECKOUT} in a checkout."
  )


def _package(name: str | None) -> str:
  return (name or "a package").partition(".")[0]
