"""Gradient balancers and task gradients on two devices, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

TWO = Path(__file__).with_name("two_devices.py")


def test_gradients_of_two_devices():
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
  result = subprocess.run(
    [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TWO)],
    env=os.environ | {"XLA_FLAGS": flags},
    cwd=TWO.parents[2],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
