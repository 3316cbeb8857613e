"""Comparing the latency of models on one device, fairly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from edgeheads.errors import EdgeheadsError
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["IN_TURN", "UNSTABLE_PERCENT", "compare"]

UNSTABLE_PERCENT = 5.0

# Long enough for the median to settle, short enough that all files of a round see the same load.
IN_TURN = BenchSettings(
    warmup_runs=5, min_warmup_seconds=0.2, runs=40, max_seconds=5.0, sample_seconds=0.0
)


def compare(
    session: DeviceSession,
    models: Mapping[str, Path],
    settings: BenchSettings | Mapping[str, BenchSettings] | None = None,
    repeats: int = 3,
    *,
    images: Mapping[str, Mapping[str, Any]] | None = None,
    before_round: Callable[[], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure the models in turn (A B A B A B), each time in a process of its own.

    A machine that warms up or gets busy then slows all of them alike, and the ratios, which are
    taken between neighbours in time, hardly change.

    Args:
        session: the device.
        models: a name for each file. The first is what the others are compared with.
        settings: the same for every measurement, or by model name.
        repeats: rounds, at least 2: one alone cannot tell whether it is stable.
        images: by model name, what `DeviceSession.bench` calls `image`.
        before_round: called before every round, for a device that must cool down.

    Returns:
        By model name:
            repeats: the full result of every round.
            latency_ms: the median over the rounds of each statistic; None for one that the
                device does not tell.
            spread_percent: (largest - smallest p50) / median p50 * 100.
            unstable: whether that is more than `UNSTABLE_PERCENT`.
            ratios_to_first: p50 divided by the first model's p50 of the same round.
            ratio_to_first: their median; 1 for the first model, below 1 for a faster one.
    """
    if not models:
        raise EdgeheadsError("compare needs at least 1 model, received none")
    if repeats < 2:
        raise EdgeheadsError(f"repeats must be at least 2, received {repeats}")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for _ in range(repeats):
        if before_round is not None:
            before_round()
        for name, model in models.items():
            own = settings[name] if isinstance(settings, Mapping) else settings
            results[name].append(session.bench(model, own, (images or {}).get(name)))
    first = _p50s(next(iter(results.values())))
    return {name: _summary(rounds, first) for name, rounds in results.items()}


def _summary(rounds: list[dict[str, Any]], first: list[float]) -> dict[str, Any]:
    statistics = [result["latency_ms"] for result in rounds]
    p50s = _p50s(rounds)
    spread = (max(p50s) - min(p50s)) / median(p50s) * 100
    ratios = [own / reference for own, reference in zip(p50s, first, strict=True)]
    return {
        "repeats": rounds,
        "latency_ms": {
            key: None if statistics[0][key] is None else median(row[key] for row in statistics)
            for key in statistics[0]
        },
        "spread_percent": spread,
        "unstable": spread > UNSTABLE_PERCENT,
        "ratios_to_first": ratios,
        "ratio_to_first": median(ratios),
    }


def _p50s(rounds: list[dict[str, Any]]) -> list[float]:
    return [result["latency_ms"]["p50"] for result in rounds]
