"""Errors of data that are there, but cannot be prepared or loaded."""


class LoadingError(RuntimeError):
  """A batch could not be made, or a process that makes them ended."""


class PreparationError(RuntimeError):
  """A process that prepares data has died."""
