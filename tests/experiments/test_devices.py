"""Experiments on many devices, and how devices are divided and described."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from igb_jax.training import devices
from tests.virtual_devices import run_tests_on

EIGHT = Path(__file__).with_name("eight_devices.py")


@pytest.mark.parametrize(
  "marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)]
)
def test_eight_devices_equal_one(marked):
  result = run_tests_on(8, EIGHT, "-m", marked)
  assert result.returncode == 0, result.stdout + result.stderr


class Device(SimpleNamespace):
  """What a mesh needs of a device."""

  __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]


def of_processes(*counts: int) -> list[Any]:
  """Devices of several processes, as JAX would list them."""
  return [
    Device(process_index=process, id=10 * process + i, device_kind="a kind")
    for process, count in enumerate(counts)
    for i in range(count)
  ]


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize(
  ("counts", "num_devices", "mesh", "message"),
  [
    ((2, 2), 2, None, "several processes use all their devices: 4, not 2"),
    ((2, 2), 3, None, "several processes use all their devices: 4, not 3"),
    ((2, 2), None, "data=2", "several processes use all their devices: 4, not 2"),
    ((1, 3), None, None, "cannot be divided evenly over processes with 1, 3 devices"),
    ((2, 2, 2), None, "data=2,model=3", "model=3 cannot be divided evenly"),
  ],
)
def test_every_process_refuses_what_cannot_be_divided(
  monkeypatch, process, counts, num_devices, mesh, message
):
  monkeypatch.setattr(jax, "devices", lambda: of_processes(*counts))
  monkeypatch.setattr(jax, "process_index", lambda: process)
  with pytest.raises(ValueError, match=message):
    devices.Devices(num_devices, mesh)


def test_how_devices_are_described(monkeypatch):
  monkeypatch.setattr(jax, "devices", lambda: of_processes(8))
  assert devices.Devices().describe() == "8 x a kind"
  assert devices.Devices(None, "data=2,model=2").describe() == "4 x a kind"
  assert devices.Devices(1).describe() == "a kind"
