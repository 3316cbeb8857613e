"""Timing by the program that needs no Python, over adb; a stand-in writes what builds of it do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stand_ins

from edgeheads.bench.job import BenchPlan, bench_device
from edgeheads.bench.native_tool import ToolSession, open_bench_session, parse_report
from edgeheads.device import CoolDown, DeviceProfile, load_device
from edgeheads.errors import CheckFailedError, EdgeheadsError, RuntimeFailureError
from edgeheads.runtime import BenchSettings, DeviceSession

REPORT = """STARTING!
Log parameter values verbosely: [0]
INFO: Created TensorFlow Lite delegate for GPU.
{delegation}
The input model file size (MB): 0.541472
Initialized session in 81.5ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds.
count=4 first=9000 curr=5000 min=5000 max=9000 avg=6000 std=1700 p5=5000 median=5000 p95=9000
Running benchmark for at least 4 iterations and at least 0 seconds.
count=4 first=5100 curr=5200 min=5000 max=5300 avg=5150 std=112 p5=5000 median=5200 p95=5300
{summary}
Memory footprint delta from the start of the tool (MB): init=2.5 overall=4
"""
SUMMARY = (
    "Inference timings in us: Init: 81500, First inference: 9000, Warmup (avg): 6000, "
    "Inference (avg): 5150"
)
APPLIED = "Explicitly applied GPU delegate, and the model graph will be"
WHOLE = f"{APPLIED} completely executed by the delegate."
PART = f"{APPLIED} partially executed by the delegate w/ 2 delegate kernels."
REPLACED = (
    "INFO: Replacing 4 out of 5 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 "
    "partitions for the whole graph."
)
NOT_AT_ALL = "Though applied explicitly, the model graph will not be executed by the delegate."
PLAN = BenchPlan(mode="custom", settings=BenchSettings(runs=4, warmup_runs=4), repeats=2)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a profile of a device whose program writes a report with this line in it."""
    folder = stand_ins.install(tmp_path / "bin", stand_ins.DEVICE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(delegation: str = WHOLE, exit_code: int = 0, words: str = REPORT) -> DeviceProfile:
        text = words.format(delegation=delegation, summary=SUMMARY)
        program = (
            f"#!/bin/sh\necho \"$@\" >>{folder}/asked\ncat <<'END'\n{text}END\nexit {exit_code}\n"
        )
        stand_ins.install(folder, {"benchmark_model": program})
        tool = str(folder / "benchmark_model")
        return replace(load_device("android-gpu"), benchmark_model=tool, cool_down=CoolDown())

    return make


def test_what_it_tells_becomes_a_measurement(device: Any, tiny_models: Any, tmp_path: Path) -> None:
    with open_bench_session(device()) as session:
        result = bench_device(session, {"m": tiny_models.int8}, PLAN)["m"]
    assert result["latency_ms"] == {
        "p50": 5.2,
        "p90": None,
        "p95": 5.3,
        "p99": None,
        "mean": 5.15,
        "std": 0.112,
        "min": 5.0,
        "max": 5.3,
    }
    one = result["repeats"][0]
    assert (one["runs"], one["warmup_runs"], one["warmup_ms"]) == (4, 4, 24.0)
    assert (one["cold_start_ms"], one["first_inference_ms"]) == (81.5, 9.0)
    assert one["peak_memory_bytes"] == 4 << 20
    assert one["nodes"] == one["delegated_nodes"] > 0
    assert result["warnings"] == []
    asked = (tmp_path / "bin" / "asked").read_text()
    assert "--use_gpu=true" in asked
    assert "--num_runs=4" in asked


def test_a_fall_back_to_the_processor_is_refused(device: Any, tiny_models: Any) -> None:
    models = {"m": tiny_models.split}
    for line, count in ((NOT_AT_ALL, 5), (PART, 5), (f"{REPLACED}\n{PART}", 1)):
        with open_bench_session(device(line)) as session:
            with pytest.raises(CheckFailedError, match=rf"{count} of 5 nodes of m do not run"):
                bench_device(session, models, PLAN)
            result = bench_device(session, models, replace(PLAN, allow_fallback=True))["m"]
        assert f"{count} of 5 nodes" in result["warnings"][0]


def test_what_needs_python_is_refused(device: Any, tiny_models: Any) -> None:
    with open_bench_session(device()) as session:
        with pytest.raises(EdgeheadsError, match="--profile-ops need Python on the device"):
            bench_device(session, {"m": tiny_models.int8}, replace(PLAN, profile_ops=True))
        with pytest.raises(EdgeheadsError, match="benchmark_model and no Python"):
            session.profile_ops(tiny_models.int8)


def test_a_program_that_fails_is_quoted(device: Any, tiny_models: Any) -> None:
    words = "STARTING!\nERROR: Didn't find op for builtin opcode 'CONV_2D' version '9'\nx\n"
    profile = device("", 1, words)
    with open_bench_session(profile) as session, pytest.raises(RuntimeFailureError) as caught:
        session.bench(tiny_models.int8)
    assert "ended with exit status 1: ERROR: Didn't find op for builtin" in str(caught.value)


def test_no_program_there(device: Any, tiny_models: Any) -> None:
    profile = replace(device(), benchmark_model="/nowhere/benchmark_model")
    with open_bench_session(profile) as session, pytest.raises(RuntimeFailureError) as caught:
        session.bench(tiny_models.int8)
    assert "has no /nowhere/benchmark_model; install it there" in str(caught.value)


def test_reports_of_other_builds() -> None:
    old = REPORT.format(delegation=WHOLE, summary=SUMMARY).replace(
        " p5=5000 median=5200 p95=5300", ""
    )
    with pytest.raises(RuntimeFailureError, match="tells a mean and no median"):
        parse_report(old)
    with pytest.raises(RuntimeFailureError, match="no line 'count"):
        parse_report("Usage: benchmark_model <flags>")
    single = (
        "INFO: count=1 curr=1500 p5=1500 median=1500 p95=1500\n"
        "INFO: count=1 curr=1400 p5=1400 median=1400 p95=1400\n"
        "INFO: Inference timings in us: Init: 100, First inference: 1500, Warmup (avg): 1500\n"
        "Overall peak memory footprint (MB) via periodic monitoring: 8\n"
    )
    found = parse_report(single)
    assert (found["latency_ms"]["p50"], found["latency_ms"]["mean"]) == (1.4, 1.4)
    assert (found["runs"], found["peak_memory_bytes"]) == (1, 8 << 20)


def test_which_session_a_profile_gets() -> None:
    assert type(open_bench_session(DeviceProfile())) is DeviceSession
    assert type(open_bench_session(load_device("android-gpu"))) is ToolSession
    with pytest.raises(EdgeheadsError, match="one of xnnpack, gpu, none, received delegate 'edge"):
        open_bench_session(DeviceProfile(delegate="edgetpu", benchmark_model="/x"))
