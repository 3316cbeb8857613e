"""`edgeheads bench` and `edgeheads evaluate` with devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import run

BRIEF = ("--runs", 3, "--warmup", 1, "--repeats", 2)


def test_a_device_that_fails_does_not_lose_the_others(tiny_models: Any) -> None:
    devices = ("--device", "host", "--device", "raspberry-pi-5", "--host", "nobody@127.0.0.1:1")
    done = run("bench", tiny_models.int8, *devices, *BRIEF, "--json")
    assert done.returncode == 3
    assert list(json.loads(done.stdout)) == ["host"]
    assert "1 of 2 devices failed: raspberry-pi-5@127.0.0.1:1: " in done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--threads", "1,x"), "like 1,2,4, each between 1 and 256, received '1,x'"),
        (("--threads", "2,2"), "name each number once, received '2,2'"),
        (("--threads", "0"), "received '0'"),
        (("--device", "host", "--device", "host"), "device host is named 2 times"),
    ],
)
def test_wrong_options(tiny_models: Any, option: tuple[str, ...], words: str) -> None:
    done = run("bench", tiny_models.int8, *option)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_changed_since_it_was_verified(converted: Any, tmp_path: Path) -> None:
    bundle = shutil.copytree(converted.bundles["int8"].folder, tmp_path / "b")
    (bundle / "verification.json").write_text(json.dumps({"model_sha256": "0" * 64}))
    (bundle / "benchmark.json").unlink(missing_ok=True)
    for command in ("bench", "evaluate"):
        done = run(command, bundle)
        assert done.returncode == 1
        assert f"edgeheads verify {bundle}" in done.stderr
    assert not (bundle / "benchmark.json").exists()
