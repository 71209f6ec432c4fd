"""Gradient balancers and task gradients on two devices, in a process of their own."""

from pathlib import Path

from tests.virtual_devices import run_tests_on


def test_gradients_of_two_devices():
  result = run_tests_on(2, Path(__file__).with_name("two_devices.py"))
  assert result.returncode == 0, result.stdout + result.stderr
