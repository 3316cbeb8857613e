"""Latency over minutes: what remains of the first seconds when a device is warm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeheads.errors import EdgeheadsError, MissingDependencyError
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["draw_curve", "require_plotting", "run_sustained", "throttled_during", "time_curve"]

_WINDOWS = 120
_LEAST_WINDOW_SECONDS = 1.0
# One run more than the asked-for time may still be under way, and the clock is read in between.
_SLACK_SECONDS = 60.0


def run_sustained(
    session: DeviceSession,
    model: Path,
    minutes: float,
    threads: int | None = None,
    settings: BenchSettings | None = None,
) -> dict[str, Any]:
    """Run a model without a pause for some minutes; see README.md for what is returned.

    Args:
        session: the device.
        model: a .tflite file.
        minutes: for how long.
        threads: of the interpreter; None takes the profile's.
        settings: whose seed and range of inputs count.
    """
    if minutes <= 0:
        raise EdgeheadsError(f"--sustained must be more than 0 minutes, received {minutes:g}")
    base = settings or BenchSettings()
    seconds = minutes * 60
    result = session.bench(
        model,
        BenchSettings(
            threads=threads,
            # A warm-up would take the cool beginning away.
            warmup_runs=0,
            min_warmup_seconds=0.0,
            runs=1,
            min_seconds=seconds,
            max_seconds=seconds + _SLACK_SECONDS,
            sample_seconds=max(1.0, seconds / _WINDOWS),
            seed=base.seed,
            input_low=base.input_low,
            input_high=base.input_high,
        ),
    )
    curve = time_curve(result["series_ms"], result["conditions_during"])
    return {
        **result,
        "minutes": minutes,
        "curve": curve,
        "slowdown": _slowdown(result["series_ms"]),
        "throttled": throttled_during(result["conditions_before"], result["conditions_after"]),
    }


def time_curve(series_ms: list[float], readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return windows of equal length, at least a second each; one without a run is left out.

    Args:
        series_ms: runs without a pause.
        readings: clock and heat, each with its "seconds"; a window takes the last one before
            its end.
    """
    series = np.asarray(series_ms, np.float64)
    starts = (np.cumsum(series) - series) / 1e3
    total = float(series.sum()) / 1e3
    length = max(_LEAST_WINDOW_SECONDS, total / _WINDOWS)
    places = (starts / length).astype(np.intp)
    windows = []
    for place in np.unique(places):
        own = series[places == place]
        end = (int(place) + 1) * length
        before = [reading for reading in readings if reading["seconds"] < end]
        last = before[-1] if before else {}
        windows.append(
            {
                "start_seconds": int(place) * length,
                "seconds": length,
                "runs": len(own),
                "p50_ms": float(np.percentile(own, 50)),
                "p90_ms": float(np.percentile(own, 90)),
                "max_ms": float(own.max()),
                "frequency_mhz": last.get("frequency_mhz"),
                "temperature_celsius": last.get("temperature_celsius"),
            }
        )
    return windows


def throttled_during(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what held the processor back between two readings of a machine's conditions."""
    old, new = before.get("throttling") or {}, after.get("throttling") or {}
    # A flag that was up before tells nothing of this run, unless it is up now.
    fresh = set(new.get("since_boot", ())) - set(old.get("since_boot", ()))
    flags = fresh | set(new.get("now", ())) | set(old.get("now", ()))
    events = (new.get("events") or 0) - (old.get("events") or 0)
    return sorted(flags) + ([f"{events} thermal events"] if events > 0 else [])


def require_plotting() -> None:
    """Raise MissingDependencyError if curves cannot be drawn: before minutes are spent."""
    _figure()


def draw_curve(result: dict[str, Any], title: str, path: Path) -> None:
    """Draw p50 and p90 over the time, and the temperature where the device tells it, as a PNG."""
    curve = result["curve"]
    minutes = [window["start_seconds"] / 60 for window in curve]
    figure = _figure()(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(minutes, [window["p90_ms"] for window in curve], color="tab:blue", alpha=0.4)
    axes.fill_between(
        minutes,
        [window["p50_ms"] for window in curve],
        [window["p90_ms"] for window in curve],
        alpha=0.2,
        label="p50 to p90",
    )
    axes.plot(minutes, [window["p50_ms"] for window in curve], color="tab:blue", label="p50")
    axes.set_xlabel("minutes")
    axes.set_ylabel("latency in ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.set_title(f"{title}: p50 at the end / at the beginning {result['slowdown']:.2f}")
    degrees = [window["temperature_celsius"] for window in curve]
    if any(degree is not None for degree in degrees):
        other = axes.twinx()
        values = [np.nan if degree is None else degree for degree in degrees]
        other.plot(minutes, values, color="tab:red", linewidth=1, label="temperature")
        other.set_ylabel("temperature in °C")
    figure.legend(loc="outside lower center", ncols=3)
    draft = path.with_name(f".{path.stem}-draft.png")
    try:
        figure.savefig(draft, dpi=120)
        draft.replace(path)
    except OSError as error:
        raise EdgeheadsError(
            f"cannot write {path} ({error.strerror or error}); make its folder writable"
        ) from None
    finally:
        draft.unlink(missing_ok=True)


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "plots", "drawing latency over time") from None
    return Figure


def _slowdown(series_ms: list[float]) -> float:
    """Return the p50 of the last tenth of the time divided by that of the first tenth."""
    series = np.asarray(series_ms, np.float64)
    starts = np.cumsum(series) - series
    first, last = starts <= starts[-1] * 0.1, starts >= starts[-1] * 0.9
    return float(np.median(series[last]) / np.median(series[first]))
