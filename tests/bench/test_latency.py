"""Comparing models: order, medians and ratios on given numbers, then once for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeheads.bench.latency import compare
from edgeheads.errors import EdgeheadsError
from edgeheads.runtime import BenchSettings, DeviceSession


class ScriptedSession:
    """Answers with the p50 that is next for a model, and remembers who was asked."""

    def __init__(self, **p50s: list[float]) -> None:
        self._p50s = {name: iter(values) for name, values in p50s.items()}
        self.asked: list[str] = []

    def bench(
        self, model: Path, settings: BenchSettings | None = None, image: Any = None
    ) -> dict[str, Any]:
        self.asked.append(model.name)
        p50 = next(self._p50s[model.name])
        return {"latency_ms": {"p50": p50, "p99": 2 * p50}, "series_ms": [p50]}


def _compare(session: ScriptedSession, repeats: int = 3) -> dict[str, dict[str, Any]]:
    return compare(session, {"a": Path("a"), "b": Path("b")}, repeats=repeats)  # type: ignore[arg-type]


def test_models_take_turns() -> None:
    session = ScriptedSession(a=[1.0] * 3, b=[1.0] * 3)
    _compare(session)
    assert session.asked == ["a", "b", "a", "b", "a", "b"]


def test_medians_spread_and_raw_results() -> None:
    result = _compare(ScriptedSession(a=[10.0, 10.4, 10.2], b=[5.0, 5.0, 6.0]))
    assert result["a"]["latency_ms"] == {"p50": 10.2, "p99": 20.4}
    assert result["a"]["spread_percent"] == pytest.approx(0.4 / 10.2 * 100)
    assert result["a"]["unstable"] is False
    assert result["b"]["spread_percent"] == pytest.approx(20.0)
    assert result["b"]["unstable"] is True
    assert [row["series_ms"] for row in result["b"]["repeats"]] == [[5.0], [5.0], [6.0]]


def test_ratios_survive_a_machine_that_slows_down() -> None:
    result = _compare(ScriptedSession(a=[10.0, 20.0, 40.0], b=[5.0, 10.0, 20.0]))
    assert result["b"]["ratios_to_first"] == [0.5, 0.5, 0.5]
    assert result["b"]["ratio_to_first"] == 0.5
    assert result["a"]["ratio_to_first"] == 1.0
    assert result["a"]["unstable"] is True


def test_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    result = _compare(ScriptedSession(a=[1.0, 2.0, 4.0], b=[4.0, 2.0, 2.0]))
    assert result["b"]["ratios_to_first"] == [4.0, 1.0, 0.5]
    assert result["b"]["ratio_to_first"] == 1.0


def test_one_round_is_not_enough() -> None:
    with pytest.raises(EdgeheadsError, match="at least 2, received 1"):
        _compare(ScriptedSession(a=[1.0], b=[1.0]), repeats=1)


def test_no_models() -> None:
    with DeviceSession() as session, pytest.raises(EdgeheadsError, match="received none"):
        compare(session, {})


def test_for_real(tiny_models: Any) -> None:
    models = {"float32": tiny_models.float32, "int8": tiny_models.int8}
    settings = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=5)
    with DeviceSession() as session:
        result = compare(session, models, settings, repeats=2)
    hashes = {row["sha256"] for each in result.values() for row in each["repeats"]}
    assert len(hashes) == 2
    assert set(result["int8"]["latency_ms"]) >= {"p50", "p90", "p95", "p99", "mean", "std"}
