"""Curves, slowdown and throttling, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeheads.bench.sustained import draw_curve, run_sustained, throttled_during, time_curve
from edgeheads.errors import EdgeheadsError
from edgeheads.runtime import DeviceSession


def test_windows_of_a_second() -> None:
    readings = [
        {"seconds": 0.0, "frequency_mhz": 1500.0, "temperature_celsius": 40.0},
        {"seconds": 1.2, "frequency_mhz": 1000.0, "temperature_celsius": 70.0},
    ]
    curve = time_curve([500.0, 500.0, 250.0, 250.0, 500.0], readings)
    assert [window["start_seconds"] for window in curve] == [0.0, 1.0]
    assert [window["runs"] for window in curve] == [2, 3]
    assert [window["p50_ms"] for window in curve] == [500.0, 250.0]
    assert curve[1]["p90_ms"] == pytest.approx(450.0)
    assert [window["max_ms"] for window in curve] == [500.0, 500.0]
    assert [window["temperature_celsius"] for window in curve] == [40.0, 70.0]


def test_a_run_longer_than_a_window_leaves_gaps() -> None:
    curve = time_curve([2500.0, 500.0], [])
    assert [window["start_seconds"] for window in curve] == [0.0, 2.0]
    assert curve[0]["temperature_celsius"] is None


def test_windows_are_bounded_in_number() -> None:
    assert len(time_curve([1000.0] * 600, [])) == 120


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, []),
        # Up since an earlier run, and not now: nothing of this run's.
        (([], ["throttled"], None), ([], ["throttled"], None), []),
        (([], [], None), ([], ["throttled"], None), ["throttled"]),
        (([], [], None), (["under-voltage"], ["under-voltage"], None), ["under-voltage"]),
        (([], [], 4), ([], [], 7), ["3 thermal events"]),
    ],
)
def test_throttled_during(before: Any, after: Any, expected: list[str]) -> None:
    def conditions(flags: Any) -> dict[str, Any]:
        keys = ("now", "since_boot", "events")
        return {"throttling": flags and dict(zip(keys, flags, strict=True))}

    assert throttled_during(conditions(before), conditions(after)) == expected


def test_for_real(tiny_models: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with DeviceSession() as session:
        result = run_sustained(session, tiny_models.int8, 1 / 60)
    assert result["seconds"] >= 1.0
    assert result["stopped_early"] is False
    assert sum(window["runs"] for window in result["curve"]) == result["runs"]
    assert result["slowdown"] > 0
    draw_curve(result, "tiny", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_no_minutes() -> None:
    with DeviceSession() as session, pytest.raises(EdgeheadsError, match="received 0"):
        run_sustained(session, Path("m.tflite"), 0)
