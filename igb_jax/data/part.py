"""The part of every batch that one of several processes makes."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
  """One of `count` equal parts of a batch; by default all of it.

  Attributes:
    index: which of them, from 0.
    count: how many there are.
  """

  index: int = 0
  count: int = 1

  def rows(self, size: int) -> slice:
    """The part's rows of an axis.

    Args:
      size: the size of the axis.

    Raises:
      ValueError: the axis cannot be divided into equal parts.

    Example:
      >>> Part(1, 2).rows(6)
      slice(3, 6, None)
    """
    each, rest = divmod(size, self.count)
    if rest:
      raise ValueError(f"{size} rows cannot be divided into {self.count} equal parts.")
    return slice(self.index * each, (self.index + 1) * each)


WHOLE = Part()
