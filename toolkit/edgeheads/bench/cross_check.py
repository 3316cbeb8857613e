"""Asking a benchmark tool that is not ours about the same file on the same device."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any

from edgeheads.errors import RuntimeFailureError
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["TOOL", "cross_check"]

# It ships with ai-edge-litert 2.1 and later. It runs files through LiteRT's CompiledModel, not
# through the Interpreter that we use: another path into the same kernels.
TOOL = "ai_edge_litert.tools.benchmark_litert_model"

_RESULT = "tool.json"
_TIMEOUT_SECONDS = 900.0


def cross_check(session: DeviceSession, model: Path, settings: BenchSettings) -> dict[str, Any]:
    """Return the tool's latency beside ours, which is measured right before and right after it.

    Returns:
        tool, version, runs, threads, p50_ms and mean_ms of the tool; ours_p50_ms; ratio, ours
        divided by the tool's. Where the tool is not there: tool is None, and "reason" says why.
    """
    threads = settings.threads or session.profile.threads
    before = session.bench(model, settings)
    reason = _reason_against(before)
    if reason is None:
        arguments = [
            *("-m", TOOL, "--model", "MODEL", "--num_threads", str(threads)),
            *("--num_runs", str(before["runs"])),
            *("--warmup_runs", str(max(1, before["warmup_runs"]))),
            *("--result_json", _RESULT),
        ]
        done = session.run_with_model(model, arguments, _TIMEOUT_SECONDS)
        if done.exit_code:
            last = (done.stderr.strip().splitlines() or ["it left no message"])[-1]
            reason = f"{TOOL} ended with exit status {done.exit_code}: {last.strip()}"
    if reason is not None:
        return {"tool": None, "reason": reason}
    found = _latency(session.read_file(_RESULT))
    after = session.bench(model, settings)
    ours = mean(result["latency_ms"]["p50"] for result in (before, after))
    return {
        "tool": TOOL,
        "version": before["runtime"]["version"],
        "runs": found["num_runs"],
        "threads": threads,
        "p50_ms": found["median_ms"],
        "mean_ms": found["avg_ms"],
        "ours_p50_ms": ours,
        "ratio": ours / found["median_ms"] if found["median_ms"] else None,
    }


def _reason_against(result: dict[str, Any]) -> str | None:
    """Return why the tool would measure something else than we do; None where it would not."""
    if result["runtime"]["name"] != "ai-edge-litert":
        return f"the tool is part of ai-edge-litert, and this is {result['runtime']['name']}"
    if result["delegate"] != "xnnpack":
        return f"the tool runs XNNPACK, and this is delegate {result['delegate']}"
    return None


def _latency(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)["latency"]
        return {key: found[key] for key in ("num_runs", "median_ms", "avg_ms")}
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeFailureError(
            f"{TOOL} wrote another report than expected ({type(error).__name__}: {error}); "
            "leave --cross-check out, or install another ai-edge-litert"
        ) from None
