"""Faults: what disks, transfers, editors and attackers do to the bytes of a file."""

from collections.abc import Callable, Mapping

import numpy as np

Fault = Callable[[bytes, np.random.Generator], bytes]


def _place(content: bytes, rng: np.random.Generator) -> int:
  return int(rng.integers(len(content)))


def _range(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
  """A range of any order of magnitude."""
  length = min(len(content), int(np.exp(rng.uniform(0, np.log(len(content) + 1)))))
  start = int(rng.integers(len(content) - length + 1))
  return start, start + length


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
  return content[: _place(content, rng)]


def emptied(content: bytes, rng: np.random.Generator) -> bytes:
  del content, rng
  return b""


def bits_flipped(content: bytes, rng: np.random.Generator) -> bytes:
  flipped = bytearray(content)
  for _ in range(rng.integers(1, 9)):
    flipped[_place(content, rng)] ^= 1 << int(rng.integers(8))
  return bytes(flipped)


def first_bits_flipped(content: bytes, rng: np.random.Generator) -> bytes:
  """In the first bytes, where headers are."""
  return bits_flipped(content[:256], rng) + content[256:]


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
  start, stop = _range(content, rng)
  return content[:start] + rng.bytes(stop - start) + content[stop:]


def zeroed(content: bytes, rng: np.random.Generator) -> bytes:
  """As a page that never reached the disk."""
  start, stop = _range(content, rng)
  return content[:start] + bytes(stop - start) + content[stop:]


def cut_out(content: bytes, rng: np.random.Generator) -> bytes:
  start, stop = _range(content, rng)
  return content[:start] + content[stop:]


def ranges_swapped(content: bytes, rng: np.random.Generator) -> bytes:
  length = int(rng.integers(1, 1 + max(1, len(content) // 4)))
  first = int(rng.integers(len(content) // 2 - length + 1))
  second = int(rng.integers(len(content) // 2, len(content) - length + 1))
  parts = [
    content[:first],
    content[second : second + length],
    content[first + length : second],
    content[first : first + length],
    content[second + length :],
  ]
  return b"".join(parts)


def extended(content: bytes, rng: np.random.Generator) -> bytes:
  return content + rng.bytes(int(rng.integers(1, 1000)))


def random_bytes(content: bytes, rng: np.random.Generator) -> bytes:
  return rng.bytes(len(content))


FAULTS: Mapping[str, Fault] = {
  fault.__name__: fault
  for fault in (
    truncated,
    emptied,
    bits_flipped,
    first_bits_flipped,
    overwritten,
    zeroed,
    cut_out,
    ranges_swapped,
    extended,
    random_bytes,
  )
}
"""What is done to any file; readers add attacks on their own formats."""
