"""Everything that `edgeheads bench` measures of a file on one device, and its refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeheads.bench.cross_check import cross_check
from edgeheads.bench.job import MODES, BenchPlan, bench_device
from edgeheads.bundle import Bundle
from edgeheads.device import DeviceProfile, Memory
from edgeheads.errors import CheckFailedError, EdgeheadsError
from edgeheads.links.base import RunResult
from edgeheads.links.local import LocalLink
from edgeheads.runtime import BenchSettings, DeviceSession

QUICK = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=4)
PLAN = BenchPlan(mode="custom", settings=QUICK, repeats=2)


def test_modes_are_what_the_documentation_says() -> None:
    quick, normal = MODES["quick"], MODES["normal"]
    assert (quick.runs, quick.max_seconds) == (128, 10.0)
    assert (normal.runs, normal.min_seconds) == (1024, 60.0)


def test_a_bundle_has_stages_and_is_stored(converted: Any, tmp_path: Path) -> None:
    bundle = Bundle(shutil.copytree(converted.bundles["int8"].folder, tmp_path / "b"))
    plan = replace(PLAN, threads=(1, 2), profile_ops=True)
    with DeviceSession(DeviceProfile(name="pi"), link=LocalLink()) as session:
        result = bench_device(session, {"b": bundle}, plan)["b"]
    assert [(one["stage"], one["where"]) for one in result["stages"]] == [
        ("resize", "host"),
        ("preprocess", "device"),
        ("inference", "device"),
        ("postprocess", "host"),
    ]
    assert result["stages"][2]["latency_ms"] == result["latency_ms"]
    assert [one["threads"] for one in result["threads_sweep"]] == [1, 2]
    assert result["threads_sweep"][0]["speedup"] == 1.0
    assert (result["label"], result["mode"]) == ("pi", "custom")
    assert result["machine"]["logical_cores"] >= 1
    stored = json.loads((bundle.folder / "benchmark-pi.json").read_text())
    assert stored["model_sha256"] == bundle.sha256
    assert stored["latency_ms"] == result["latency_ms"]
    profile = json.loads((bundle.folder / "op_profile-pi.json").read_text())
    assert sum(row["count"] for row in profile["by_op"]) == profile["nodes"]


def test_silent_fallback_is_refused_before_anything_is_timed(tiny_models: Any) -> None:
    profile = DeviceProfile(runtime="ai-edge-litert")
    with DeviceSession(profile) as session:
        with pytest.raises(CheckFailedError, match=r"1 of 5 nodes of m .* REVERSE_V2 \(int8\)"):
            bench_device(session, {"m": tiny_models.split}, PLAN)
        allowed = replace(PLAN, allow_fallback=True)
        result = bench_device(session, {"m": tiny_models.split}, allowed)["m"]
    assert "1 of 5 nodes" in result["warnings"][0]
    assert result["fallback_allowed"] is True
    assert result["stages"] == []


def test_a_model_larger_than_the_memory(tmp_path: Path) -> None:
    model = tmp_path / "large.tflite"
    with model.open("wb") as file:
        file.truncate((1 << 20) + 1)
    profile = DeviceProfile(name="small", memory=Memory(ram_mb=1))
    with (
        DeviceSession(profile, link=LocalLink()) as session,
        pytest.raises(EdgeheadsError, match="small has 1 MB of memory in all"),
    ):
        session.inspect(model)


def test_rounds_that_end_early_are_said(tiny_models: Any) -> None:
    settings = replace(QUICK, runs=10**9, max_seconds=0.05)
    with DeviceSession() as session:
        result = bench_device(session, {"m": tiny_models.int8}, replace(PLAN, settings=settings))
    assert any("2 of 2 rounds ended early" in text for text in result["m"]["warnings"])


class ToolLink(LocalLink):
    """Answers in the place of the independent tool."""

    def __init__(self, answer: str | None) -> None:
        super().__init__()
        self._answer = answer

    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        if "-m" not in argv:
            return super().run(argv, timeout_seconds)
        if self._answer is None:
            return RunResult(1, "", "Traceback\nNo module named 'ml_dtypes'\n")
        (self.folder / "tool.json").write_text(self._answer)
        return RunResult(0, "", "")


class TestCrossCheck:
    def check(self, model: Path, answer: str | None, **profile: Any) -> dict[str, Any]:
        device = DeviceProfile(**{"runtime": "ai-edge-litert", **profile})
        with DeviceSession(device, link=ToolLink(answer)) as session:
            return cross_check(session, model, QUICK)

    def test_ratio(self, tiny_models: Any) -> None:
        latency = {"num_runs": 4, "median_ms": 0.5, "avg_ms": 0.6}
        found = self.check(tiny_models.int8, json.dumps({"latency": latency}))
        assert (found["p50_ms"], found["mean_ms"], found["runs"]) == (0.5, 0.6, 4)
        assert found["ratio"] == pytest.approx(found["ours_p50_ms"] / 0.5)

    def test_no_tool(self, tiny_models: Any) -> None:
        found = self.check(tiny_models.int8, None)
        assert found["tool"] is None
        assert found["reason"].endswith("exit status 1: No module named 'ml_dtypes'")

    def test_another_delegate(self, tiny_models: Any) -> None:
        assert "delegate none" in self.check(tiny_models.int8, None, delegate="none")["reason"]

    def test_another_report(self, tiny_models: Any) -> None:
        with pytest.raises(EdgeheadsError, match="another report than expected"):
            self.check(tiny_models.int8, "{}")

    @pytest.mark.slow
    def test_the_real_tool_agrees(self, converted: Any) -> None:
        pytest.importorskip("ai_edge_litert.tools.benchmark_litert_model")
        settings = BenchSettings(runs=64)
        with DeviceSession(DeviceProfile(runtime="ai-edge-litert")) as session:
            found = cross_check(session, converted.bundles["int8"].model_path, settings)
        # Its report has hundredths of a millisecond, and this model takes a few of them.
        assert found["tool"]
        assert 0.3 < found["ratio"] < 3
