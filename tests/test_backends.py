"""The library part on the other backend it runs on: the same tests, in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax"])
def test_heads_and_backbones_pass_on_another_backend(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "heads", "backbones", "training/losses", "test_model.py"],
        cwd=_TESTS,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
