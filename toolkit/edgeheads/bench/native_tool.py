"""Timing where there is no Python: by TensorFlow Lite's own `benchmark_model` on the device."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from typing import Any

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links.base import Link
from edgeheads.links.shell import ShellLink
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.targets.graph import read_operations

__all__ = ["ToolSession", "open_bench_session", "parse_report"]

# Loading a large file from a slow disk, and compiling it for a GPU.
_START_SECONDS = 300.0

_DELEGATE_FLAGS = {
    "xnnpack": ("--use_xnnpack=true",),
    "gpu": ("--use_gpu=true",),
    "none": ("--use_xnnpack=false",),
}

_RUNS = re.compile(r"^(?:INFO: |I tflite\s*: )?count=(\d+) (.*)$", re.MULTILINE)
_PAIR = re.compile(r"(\w+)=([\d.e+-]+)")
_SUMMARY = re.compile(r"Inference timings in us: Init: ([\d.e+]+), First inference: ([\d.e+]+)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([\d.]+)")
_FOOTPRINT = re.compile(r"[Mm]emory footprint.*\(MB\): init=[\d.e-]+ overall=([\d.e-]+)")
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\).*?(?:yielding (\d+) partitions)?$")
_REFUSED = re.compile(r"graph will not be executed by the delegate|is unsupported on this platform")
_PARTIAL = re.compile(r"graph will be partially executed by the delegate w/ (\d+) delegate")
_WHOLE = "graph will be completely executed by the delegate"


def open_bench_session(profile: DeviceProfile, cancelled: Event | None = None) -> DeviceSession:
    """Return a session that can time files on the profile's device, with Python or without."""
    kind = ToolSession if profile.benchmark_model else DeviceSession
    return kind(profile, cancelled=cancelled)


class ToolSession(DeviceSession):
    """A device that only has `benchmark_model`: it times files, and computes no outputs.

    The program must be on the device and executable, at the profile's `benchmark_model`. Its
    answers have the keys of a `DeviceSession`'s, without those that the program does not tell:
    these are None, and the series of single runs is empty.

    Args:
        profile: the target; its `benchmark_model` names the program.
        link: how to reach it, instead of the profile's own link.
        cancelled: see `DeviceSession`.
    """

    def __init__(
        self, profile: DeviceProfile, link: Link | None = None, cancelled: Event | None = None
    ) -> None:
        super().__init__(profile, link, cancelled=cancelled)
        if profile.delegate not in _DELEGATE_FLAGS:
            raise EdgeheadsError(
                f"{profile.name} times with benchmark_model, which here runs one of "
                f"{', '.join(_DELEGATE_FLAGS)}, received delegate {profile.delegate!r}; "
                "leave benchmark_model out of its profile"
            )

    def describe(self) -> dict[str, Any]:
        """Return what the device tells without Python, and its heat in "conditions"."""
        facts = self._facts()
        memory = _number(facts.get("memory_kb"))
        return {
            "runtime": self._runtime(),
            "system": next(iter(facts.get("system", [])), None),
            "memory_bytes": None if memory is None else int(memory) << 10,
            "conditions": _conditions(facts),
        }

    def inspect(self, model: Path) -> dict[str, Any]:
        """Return how many of a file's operations the delegate took; "undelegated" without names."""
        operations = read_operations(model)
        # Compiling is what tells; one run of it is enough.
        words = self._run_tool(model, BenchSettings(runs=1, warmup_runs=0, max_seconds=1.0))
        taken, partitions = _delegation(words, len(operations), self.profile.delegate)
        left = len(operations) - taken
        return {
            "delegate": self.profile.delegate,
            "nodes": len(operations),
            "delegated_nodes": taken,
            "delegate_partitions": partitions,
            "undelegated": [{"op": "not named by benchmark_model", "dtypes": "unknown"}] * left,
            "runtime": self._runtime(),
        }

    def bench(
        self,
        model: Path,
        settings: BenchSettings | None = None,
        image: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return what the program measured; see `DeviceSession.bench`. `image` is not used."""
        settings = settings or BenchSettings()
        operations = read_operations(model)
        before, started_at = _conditions(self._facts()), _utc_now()
        words = self._run_tool(model, settings)
        after, finished_at = _conditions(self._facts()), _utc_now()
        report = parse_report(words)
        taken, partitions = _delegation(words, len(operations), self.profile.delegate)
        return {
            "sha256": self._put(model).partition(".")[0],
            "size_bytes": model.stat().st_size,
            "runtime": self._runtime(),
            "threads": settings.threads or self.profile.threads,
            "delegate": self.profile.delegate,
            "nodes": len(operations),
            "delegated_nodes": taken,
            "delegate_partitions": partitions,
            **report,
            "series_ms": [],
            "runs_requested": settings.runs,
            "seconds": report["latency_ms"]["mean"] * report["runs"] / 1e3,
            "min_seconds": settings.min_seconds,
            "max_seconds": settings.max_seconds,
            "stopped_early": report["runs"] < settings.runs,
            "warmup_runs_requested": settings.warmup_runs,
            "import_ms": None,
            "process_to_ready_ms": None,
            "preprocess_ms": None,
            "model_memory_bytes": None,
            "seed": None,
            "protocol": _protocol(self.profile, settings),
            "conditions_before": before,
            "conditions_during": [],
            "conditions_after": after,
            "started_at": started_at,
            "finished_at": finished_at,
        }

    def _ask(self, action: str, *_about: Any, **_named: Any) -> dict[str, Any]:
        raise EdgeheadsError(
            f"{self.profile.name} has benchmark_model and no Python ({action}): it tells latency "
            "alone; leave out what needs more, or set Python up there and name its profile"
        )

    def _run_tool(self, model: Path, settings: BenchSettings) -> str:
        """Run the program on a file, and return all it wrote."""
        self._require_not_cancelled()
        argv = [
            self.profile.benchmark_model,
            f"--graph={self._put(model)}",
            f"--num_threads={settings.threads or self.profile.threads}",
            f"--num_runs={settings.runs}",
            f"--min_secs={settings.min_seconds:g}",
            f"--max_secs={settings.max_seconds:g}",
            f"--warmup_runs={settings.warmup_runs}",
            f"--warmup_min_secs={settings.min_warmup_seconds:g}",
            "--report_peak_memory_footprint=true",
            *_DELEGATE_FLAGS[self.profile.delegate],
        ]
        done = self._link.run(argv, _START_SECONDS + settings.longest_seconds)
        words = f"{done.stdout}\n{done.stderr}".replace("\r", "")
        if done.exit_code != 0:
            lines = [line for line in words.splitlines() if line.strip()] or ["it left no message"]
            problem = next((one for one in lines if "ERROR" in one), lines[-1]).strip()
            raise RuntimeFailureError(
                f"{self.profile.benchmark_model} on {self.where()} ended with exit status "
                f"{done.exit_code}: {problem}; run it there by hand, or install another build"
            )
        return words

    def _facts(self) -> dict[str, list[str]]:
        return self._link.facts() if isinstance(self._link, ShellLink) else {}

    def _runtime(self) -> dict[str, str]:
        return {"name": "benchmark_model", "version": "of unknown version"}


def parse_report(words: str) -> dict[str, Any]:
    """Return what `benchmark_model` wrote, in the keys and units of `DeviceSession.bench`.

    Raises:
        RuntimeFailureError: it is another program's report, or an older one's, without medians.
    """
    blocks = [
        {"count": float(count), **{key: float(value) for key, value in _PAIR.findall(rest)}}
        for count, rest in _RUNS.findall(words)
    ]
    summary = _SUMMARY.search(words)
    if not blocks or summary is None:
        raise RuntimeFailureError(
            "benchmark_model wrote no line 'count=... avg=...' and no 'Inference timings in us'; "
            "install TensorFlow Lite's benchmark_model there, for the device's processor"
        )
    runs, warmup = blocks[-1], blocks[0] if len(blocks) > 1 else {}
    # A single run is written as "count=1 curr=1234", with or without its percentiles.
    if runs["count"] == 1:
        runs = {**dict.fromkeys(("avg", "median", "p95", "min", "max"), runs["curr"]), **runs}
        runs.setdefault("std", 0.0)
    if "median" not in runs:
        raise RuntimeFailureError(
            "this benchmark_model tells a mean and no median; install a build of 2024 or later, "
            "which writes p5, median and p95"
        )
    warmup_us = warmup.get("avg", warmup.get("curr", math.nan)) * warmup.get("count", 0)
    peak = _PEAK.search(words) or _FOOTPRINT.search(words)
    return {
        "latency_ms": {
            "p50": runs["median"] / 1e3,
            "p90": None,
            "p95": runs["p95"] / 1e3,
            "p99": None,
            "mean": runs["avg"] / 1e3,
            "std": runs["std"] / 1e3,
            "min": runs["min"] / 1e3,
            "max": runs["max"] / 1e3,
        },
        "runs": int(runs["count"]),
        "warmup_runs": int(warmup.get("count", 0)),
        "warmup_ms": 0.0 if math.isnan(warmup_us) else warmup_us / 1e3,
        "cold_start_ms": float(summary[1]) / 1e3,
        "first_inference_ms": float(summary[2]) / 1e3,
        "peak_memory_bytes": int(float(peak[1]) * (1 << 20)) if peak else None,
    }


def _delegation(words: str, nodes: int, delegate: str) -> tuple[int, int]:
    """Return how many nodes the delegate took, and in how many partitions.

    The program says that a graph runs whole, in part or not at all; of how many nodes, only in
    builds that log it. A part of unknown size counts as none: a fallback must not go unseen.
    """
    if delegate == "none":
        return 0, 0
    if _REFUSED.search(words):
        return 0, 0
    # The delegate that was asked for is applied last; its line counts.
    replaced = [one for line in words.splitlines() if (one := _REPLACED.search(line))]
    if _WHOLE in words:
        return nodes, 1
    if replaced:
        taken, partitions = int(replaced[-1][1]), replaced[-1][3]
        return min(taken, nodes), int(partitions or 1)
    partial = _PARTIAL.search(words)
    return 0, int(partial[1]) if partial else 0


def _conditions(facts: Mapping[str, list[str]]) -> dict[str, Any]:
    heat = [int(one) / 1e3 for one in facts.get("temperature_millicelsius", []) if _is_heat(one)]
    return {
        "governor": next(iter(facts.get("governor", [])), None),
        "max_frequency_mhz": None,
        "frequency_mhz": None,
        "temperature_celsius": max(heat) if heat else None,
        "load_average_1min": None,
        "throttling": None,
    }


def _is_heat(text: str) -> bool:
    """Tell a temperature from what drivers write where there is no sensor."""
    return text.isdecimal() and 1_000 <= int(text) <= 150_000


def _number(texts: list[str] | None) -> float | None:
    return float(texts[0]) if texts and texts[0].isdecimal() else None


def _utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _protocol(profile: DeviceProfile, settings: BenchSettings) -> str:
    return (
        f"TensorFlow Lite's benchmark_model ({profile.benchmark_model}) in a process of its own, "
        f"{settings.threads or profile.threads} thread(s), delegate {profile.delegate}, batch 1, "
        "its own random inputs. Timed is the invoke call alone, by the program. Counted are at "
        f"least {settings.runs} runs and {settings.min_seconds:g} s, ended early after "
        f"{settings.max_seconds:g} s; before them {settings.warmup_runs} runs and "
        f"{settings.min_warmup_seconds:g} s are not counted. A GPU may compute in float16. "
        "cold_start_ms is what the program calls Init. Single runs are not told: p90 and p99 are "
        "unknown. Peak memory is the program's own reading. Heat is read before and after."
    )
