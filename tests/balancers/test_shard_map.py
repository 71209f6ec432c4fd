"""Gradient balancers and task gradients on two devices, in a process of their own."""

from pathlib import Path

import pytest

from tests.virtual_devices import run_tests_on


@pytest.mark.parametrize(
  "marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)]
)
def test_gradients_of_two_devices(marked):
  result = run_tests_on(2, Path(__file__).with_name("two_devices.py"), "-m", marked)
  assert result.returncode == 0, result.stdout + result.stderr
