"""How much faster int8 is: the arithmetic, and the table measured for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeheads.bench.int8_speed import Speedup, int8_speed, measure_speedups, summarize
from edgeheads.errors import EdgeheadsError
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.task_type import TaskType


def row(backbone: str, plain_ratio: float, ratio: float) -> Speedup:
    return Speedup("depth", backbone, 4.0, 4.0, 2.0, plain_ratio, ratio, ratio, ratio, 3, 3, 3)


def test_the_summary_is_geometric() -> None:
    found = summarize([row("a", 0.5, 1.0), row("b", 2.0, 4.0)])
    assert found == {
        "geometric_mean": pytest.approx(2.0),
        "plain_geometric_mean": pytest.approx(1.0),
        "lowest": 1.0,
        "lowest_of": "depth on a",
    }


def test_an_unknown_backbone_is_refused_before_any_work() -> None:
    with (
        DeviceSession() as session,
        pytest.raises(EdgeheadsError, match="unknown backbone 'mobilenet_v9'; did you mean"),
    ):
        measure_speedups([TaskType.CLASSIFICATION], ["mobilenet_v9"], (64, 64), session)


def test_an_unknown_task_is_refused() -> None:
    result = CliRunner().invoke(int8_speed, ["--tasks", "dept"])
    assert isinstance(result.exception, EdgeheadsError)
    assert "unknown task 'dept'" in str(result.exception)


@pytest.mark.slow
def test_files_are_timed_and_kept(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    arguments = ["--tasks", "classification", "--backbones", "tiny", "--input-size", "64"]
    arguments += ["--rounds", "2", "--keep", str(tmp_path), "--json"]
    result = CliRunner().invoke(int8_speed, arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    [one] = found["rows"]
    assert one["task"] == "classification"
    assert one["lowest"] <= one["ratio"] <= one["highest"]
    assert one["ratio"] == found["lowest"]
    names = sorted(path.name for path in tmp_path.iterdir())
    stem = "classification-tiny_1-64x64"
    assert names == [f"{stem}-{kind}.tflite" for kind in ("float32", "int8", "plain")]

    # A second run times the same files.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    quick = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=3)
    with DeviceSession() as session:
        measure_speedups(
            [TaskType.CLASSIFICATION],
            ["tiny"],
            (64, 64),
            session,
            rounds=2,
            settings=quick,
            folder=tmp_path,
        )
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
