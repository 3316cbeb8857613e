"""Everything `edgeheads bench` measures of some files on one device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeheads.bench.cooling import CoolDownGuard
from edgeheads.bench.cross_check import cross_check
from edgeheads.bench.latency import compare
from edgeheads.bench.native_tool import ToolSession
from edgeheads.bench.stages import all_stages
from edgeheads.bench.sustained import draw_curve, run_sustained, throttled_during
from edgeheads.bundle import Bundle
from edgeheads.errors import CheckFailedError, EdgeheadsError
from edgeheads.measurements import device_label, measurement_name, require_verified_file
from edgeheads.progress import Progress, SilentProgress, Step
from edgeheads.runtime import BenchSettings, DeviceSession

__all__ = ["MODES", "BenchPlan", "bench_device", "model_file"]

MODES = {
    "quick": BenchSettings(runs=128, max_seconds=10.0),
    "normal": BenchSettings(runs=1024, min_warmup_seconds=1.0, min_seconds=60.0, max_seconds=600.0),
}

# Of a machine, in benchmark.json; the state of the moment is in the rounds.
_MOMENTARY = ("action", "runtime", "import_ms", "conditions")


@dataclass(frozen=True)
class BenchPlan:
    """What is to be measured.

    Attributes:
        mode: a key of `MODES`, or "custom".
        settings: of every round.
        repeats: rounds, at least 2.
        threads: counts to compare; the first one is the main measurement's. Empty takes the
            device's own.
        sustained_minutes: of a run without a pause, for every file; 0 leaves it out.
        cross_check: ask the tool that ships with ai-edge-litert, too.
        profile_ops: time every operation.
        allow_fallback: measure files of which the delegate leaves nodes to the interpreter.
    """

    mode: str = "quick"
    settings: BenchSettings = MODES["quick"]
    repeats: int = 3
    threads: tuple[int, ...] = ()
    sustained_minutes: float = 0.0
    cross_check: bool = False
    profile_ops: bool = False
    allow_fallback: bool = False

    @property
    def rounds(self) -> int:
        """How many rounds there are, for a progress bar."""
        sweep = self.repeats if len(self.threads) > 1 else 0
        return self.repeats + sweep


def model_file(model: Bundle | Path) -> Path:
    """Return the .tflite file of a Bundle, or the file itself."""
    return model.model_path if isinstance(model, Bundle) else model


def bench_device(
    session: DeviceSession,
    models: Mapping[str, Bundle | Path],
    plan: BenchPlan,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure files on one device, and store what was measured of Bundles in them.

    Args:
        session: the device.
        models: by name, in the order in which they take turns. The first is what the others are
            compared with.
        plan: what to measure.
        progress: where to report.

    Returns:
        {name: what benchmark.json holds}, and "sustained" and "op_profile" in it where asked for;
        see README.md.

    Raises:
        CheckFailedError: the delegate leaves nodes to the interpreter, and that is not allowed;
            or a Bundle was changed since it was verified. Nothing was measured then.
        EdgeheadsError: the plan asks for what the device's tool does not tell.
    """
    _require_python(session, plan)
    for model in models.values():
        if isinstance(model, Bundle):
            require_verified_file(model)
    files = {name: model_file(model) for name, model in models.items()}
    machine = session.describe()
    left = {
        name: _require_delegated(session, name, path, plan.allow_fallback)
        for name, path in files.items()
    }
    settings = _with_threads(plan.settings, plan.threads[0] if plan.threads else None)
    guard = CoolDownGuard(session, session.profile.cool_down)
    label = device_label(session.profile)
    progress = progress or SilentProgress()
    with progress.step(f"Timing on {label}", plan.rounds) as step:
        results = compare(
            session,
            files,
            settings,
            plan.repeats,
            images={
                name: model.contract.to_json()["image"]
                for name, model in models.items()
                if isinstance(model, Bundle)
            },
            before_round=_advancing(step, guard),
        )
        sweeps = _sweeps(session, files, plan, _advancing(step, guard))
    contents = {}
    for name, model in models.items():
        content = {
            **results[name],
            **_about(session, label),
            "mode": plan.mode,
            "machine": {key: one for key, one in machine.items() if key not in _MOMENTARY},
            "stages": all_stages(model, results[name]) if isinstance(model, Bundle) else [],
            "fallback_allowed": plan.allow_fallback,
            "cool_down": guard.to_json(),
            "threads_sweep": sweeps.get(name, []),
            "warnings": [*left[name], *_warnings(results[name], guard)],
        }
        if plan.cross_check:
            with progress.step(f"Cross-checking on {label}"):
                content["cross_check"] = cross_check(session, files[name], settings)
        contents[name] = content
        _store(model, "benchmark", label, content)
    for name, model in models.items():
        _extras(session, model, plan, contents[name], progress)
    return contents


def _require_python(session: DeviceSession, plan: BenchPlan) -> None:
    """Refuse, before anything is measured, what needs our program on the device."""
    asked = {
        "--profile-ops": plan.profile_ops,
        "--sustained": plan.sustained_minutes > 0,
        "--cross-check": plan.cross_check,
    }
    refused = [option for option, is_asked in asked.items() if is_asked]
    if refused and isinstance(session, ToolSession):
        raise EdgeheadsError(
            f"{' and '.join(refused)} need Python on the device, and {session.profile.name} has "
            "benchmark_model alone; leave them out"
        )


def _about(session: DeviceSession, label: str) -> dict[str, str]:
    return {"device": session.profile.name, "label": label, "title": session.profile.title}


def _with_threads(settings: BenchSettings, threads: int | None) -> BenchSettings:
    return settings if threads is None else replace(settings, threads=threads)


def _advancing(step: Step, guard: CoolDownGuard) -> Callable[[], None]:
    def before_round() -> None:
        guard()
        step.advance()

    return before_round


def _require_delegated(session: DeviceSession, name: str, path: Path, allowed: bool) -> list[str]:
    """Return a warning where nodes stay outside the delegate, or refuse the file."""
    facts = session.inspect(path)
    if facts["delegate"] == "none" or not facts["undelegated"]:
        return []
    ops = sorted({f"{node['op']} ({node['dtypes']})" for node in facts["undelegated"]})
    named = ", ".join(ops[:5]) + (f" and {len(ops) - 5} more kinds" if len(ops) > 5 else "")
    text = (
        f"{len(facts['undelegated'])} of {facts['nodes']} nodes of {name} do not run in "
        f"{facts['delegate']} on {device_label(session.profile)}: {named}"
    )
    if not allowed:
        raise CheckFailedError(
            f"{text}; convert for this device, install a newer runtime, or measure it all the "
            "same with --allow-fallback"
        )
    return [text]


def _sweeps(
    session: DeviceSession,
    files: Mapping[str, Path],
    plan: BenchPlan,
    before_round: Callable[[], None],
) -> dict[str, list[dict[str, Any]]]:
    """Return each file's rows, one per thread count; the counts take turns."""
    if len(plan.threads) < 2:
        return {}
    keys = {f"{count} {name}": (name, count) for name in files for count in plan.threads}
    results = compare(
        session,
        {key: files[name] for key, (name, _) in keys.items()},
        {key: _with_threads(plan.settings, count) for key, (_, count) in keys.items()},
        plan.repeats,
        before_round=before_round,
    )
    rows = defaultdict(list)
    for key, (name, count) in keys.items():
        result, first = results[key], results[f"{plan.threads[0]} {name}"]
        one = result["repeats"][0]
        ratios = sorted(
            reference["latency_ms"]["p50"] / own["latency_ms"]["p50"]
            for reference, own in zip(first["repeats"], result["repeats"], strict=True)
        )
        rows[name].append(
            {
                "threads": count,
                "latency_ms": result["latency_ms"],
                "spread_percent": result["spread_percent"],
                "unstable": result["unstable"],
                "peak_memory_bytes": one["peak_memory_bytes"],
                "nodes": one["nodes"],
                "delegated_nodes": one["delegated_nodes"],
                "speedup": ratios[len(ratios) // 2],
            }
        )
    return dict(rows)


def _warnings(result: Mapping[str, Any], guard: CoolDownGuard) -> list[str]:
    """Return what makes the numbers less than they seem, a sentence each."""
    found = []
    if result["unstable"]:
        found.append(
            f"unstable: the rounds differ by {result['spread_percent']:.0f} %; close other "
            "programs, cool the device, or take --mode normal"
        )
    early = [one for one in result["repeats"] if one["stopped_early"]]
    if early:
        found.append(
            f"{len(early)} of {len(result['repeats'])} rounds ended early, after "
            f"{min(one['runs'] for one in early)} of {early[0]['runs_requested']} runs; raise "
            "--max-seconds"
        )
    flags = {
        flag
        for one in result["repeats"]
        for flag in throttled_during(one["conditions_before"], one["conditions_after"])
    }
    if flags:
        found.append(
            f"held back by {', '.join(sorted(flags))}; see to its power supply and cooling"
        )
    if guard.gave_up:
        found.append(
            f"{len(guard.gave_up)} rounds began above the profile's "
            f"{guard.to_json()['start_below_celsius']} °C; cool the device"
        )
    return found


def _extras(
    session: DeviceSession,
    model: Bundle | Path,
    plan: BenchPlan,
    content: dict[str, Any],
    progress: Progress,
) -> None:
    """Measure what was asked for beyond the rounds, store it, and add it to the content."""
    path, label = model_file(model), content["label"]
    about = _about(session, label)
    threads = plan.threads[0] if plan.threads else plan.settings.threads
    if plan.profile_ops:
        with progress.step(f"Timing operations on {label}"):
            profile = {**session.profile_ops(path, threads), **about}
        profile["by_op"] = _by_op(profile["ops"])
        content["op_profile"] = profile
        _store(model, "op_profile", label, profile)
    if plan.sustained_minutes:
        with progress.step(f"{plan.sustained_minutes:g} min on {label}"):
            result = run_sustained(session, path, plan.sustained_minutes, threads, plan.settings)
        result.update(about)
        _store(model, "sustained", label, result)
        picture = _picture(model, label)
        draw_curve(result, f"{picture.parent.name}, {label}", picture)
        content["sustained"] = {**result, "picture": str(picture)}


def _picture(model: Bundle | Path, label: str) -> Path:
    """Return where the curve is drawn: in the Bundle, or beside the file."""
    name = measurement_name("sustained", label)
    if isinstance(model, Bundle):
        return model.folder / f"{name}.png"
    return model.with_name(f"{model.stem}-{name}.png")


def _by_op(ops: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return milliseconds by kind of operation, the largest first."""
    total = sum(one["ms"] or 0.0 for one in ops)
    kinds: dict[str, list[float]] = defaultdict(list)
    for one in ops:
        kinds[one["op"]].append(one["ms"] or 0.0)
    rows = [
        {
            "op": op,
            "count": len(values),
            "ms": sum(values),
            "share_percent": sum(values) / total * 100 if total else 0.0,
        }
        for op, values in kinds.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def _store(model: Bundle | Path, kind: str, label: str, content: Mapping[str, Any]) -> None:
    if isinstance(model, Bundle):
        model.save_measurement(measurement_name(kind, label), content)
