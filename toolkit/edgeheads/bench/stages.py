"""What a user's program does around the model: resize and decode, timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeheads.bundle import Bundle
from edgeheads.data.images import resize_rgb
from edgeheads.errors import MissingDependencyError
from edgeheads.evaluate import bundle_task
from edgeheads.ondevice.timing import summarize

__all__ = ["all_stages"]

_RUNS = 50
_MAX_SECONDS = 2.0
# (height, width) of a common camera.
_CAMERA = (480, 640)


def all_stages(bundle: Bundle, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the stages of a prediction, in order; see README.md.

    Args:
        bundle: what was timed.
        result: of `compare`, from a device that was told the bundle's image input.
    """
    repeats = result["repeats"]
    # The middle one of the rounds.
    prepared = sorted(
        (one["preprocess_ms"] for one in repeats if one.get("preprocess_ms")),
        key=lambda one: one["latency_ms"]["p50"],
    )
    runs = sum(one["runs"] for one in repeats)
    return [
        *_resize(bundle),
        *(
            [{"stage": "preprocess", "where": "device", **prepared[len(prepared) // 2]}]
            if prepared
            else []
        ),
        {
            "stage": "inference",
            "where": "device",
            "latency_ms": result["latency_ms"],
            "runs": runs,
        },
        _decode(bundle),
    ]


def _resize(bundle: Bundle) -> list[dict[str, Any]]:
    picture = np.random.default_rng(0).integers(0, 256, (*_CAMERA, 3), np.uint8)
    size = bundle.contract.image.size
    try:
        return [_timed("resize", lambda: resize_rgb(picture, size))]
    except MissingDependencyError:
        return []


def _decode(bundle: Bundle) -> dict[str, Any]:
    golden, contract, task = bundle.golden(), bundle.contract, bundle_task(bundle)
    stored = {spec.name: golden[f"expected/{spec.name}"][:1] for spec in contract.outputs}
    return _timed(
        "postprocess", lambda: task.decode(contract.dequantize(stored), contract.decoding)
    )


def _timed(stage: str, work: Callable[[], object]) -> dict[str, Any]:
    """Call it once for the caches, then up to `_RUNS` times."""
    work()
    series: list[float] = []
    begin = time.perf_counter()
    while not series or (len(series) < _RUNS and time.perf_counter() - begin < _MAX_SECONDS):
        started = time.perf_counter_ns()
        work()
        series.append((time.perf_counter_ns() - started) / 1e6)
    return {
        "stage": stage,
        "where": "host",
        "latency_ms": summarize(series),
        "runs": len(series),
    }
