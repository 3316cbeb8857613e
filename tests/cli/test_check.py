"""`edgeheads check` in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import DEVICE_LACKS, run

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult


@pytest.fixture
def bundle(converted: ConvertResult, tmp_path: Path) -> Path:
    return shutil.copytree(converted.bundles["int8"].folder, tmp_path / "int8")


def test_exit_codes_tell_a_pass_a_failure_and_wrong_use_apart(bundle: Path) -> None:
    passed = run("check", bundle, "--max-size-kb", "1e6", without=DEVICE_LACKS)
    assert (passed.returncode, passed.stdout[:4]) == (0, "pass"), passed.stderr
    failed = run("check", bundle, "--max-size-kb", "0.001", "--json")
    assert failed.returncode == 1
    assert "1 of 1 limits do not hold" in failed.stderr
    content = json.loads(failed.stdout)
    assert content["passed"] is False
    assert content["limits"][0]["value"] == (bundle / "model.tflite").stat().st_size / 1000
    misused = run("check", bundle, "--max-sise-kb", "1")
    assert misused.returncode == 2
    assert "did you mean size_kb" in misused.stderr


def test_a_changed_bundle_fails(bundle: Path) -> None:
    with (bundle / "model.tflite").open("ab") as file:
        file.write(b"x")
    assert run("check", bundle, "--max-size-kb", "1e6").returncode == 1
