"""What `edgeheads convert` prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from edgeheads.cli.console import counted, print_table
from edgeheads.cli.prune_report import print_report
from edgeheads.convert import ConvertResult
from edgeheads.errors import CheckFailedError
from edgeheads.evaluate import require_small_drop
from edgeheads.separate import Separate
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric, Task, rounded

__all__ = ["as_json", "failures", "print_result", "print_separate"]

_NONE = "–"
_SHOWN = 3
# A table of more is turned on its side.
_MOST_COLUMNS = 13


def print_result(result: ConvertResult) -> None:
    """Print the table of accuracy, size and latency, what it means, and what to do next."""
    if result.pruning:
        print_report(result.pruning, result.recipe)
    task = get_task(result.recipe.task, result.recipe.head.options)
    height, width = result.recipe.input_size
    columns, rows = _scores(result, task)
    if len(columns) > _MOST_COLUMNS:
        columns, *rows = ([*cells] for cells in zip(columns, *rows, strict=True))
    print_table(
        f"{task.title}, {result.recipe.backbone.name} {result.recipe.backbone.width:g}, "
        f"{height}x{width}, {result.parameters:,} parameters",
        columns,
        rows,
    )
    for line in _notes(result):
        click.echo(line)
    for precision, bundle in result.bundles.items():
        click.echo(f"{precision} Bundle: {bundle.folder}")
    last = list(result.bundles.values())[-1].folder
    click.echo(f"Next: edgeheads predict {shlex.quote(str(last))} IMAGE...")


def _scores(result: ConvertResult, task: Task) -> tuple[list[str], list[list[str]]]:
    """Return the headings, and a row for each of the baseline, the Keras model and the files."""
    columns = [
        "",
        *(f"{metric.title}{_arrow(metric.higher_is_better)}" for metric in task.metrics),
        "size kB",
        "p50 ms",
        "p90 ms",
        "delegated",
    ]
    rows = []
    if result.baseline:
        rows.append(_row(result.baseline["kind"], result.baseline["metrics"], task, None, None))
    rows.append(_row("Keras float32", result.float_scores["metrics"], task, None, None))
    for precision, bundle in result.bundles.items():
        metrics = result.evaluations[precision]["metrics"]
        bench = result.benchmarks[precision]
        rows.append(_row(f"{precision} .tflite", metrics, task, bundle.model_bytes, bench))
    return columns, rows


def print_separate(separate: Separate) -> None:
    """Print one file for all tasks beside one file for each."""
    rows = [
        [f"{metric.title}{_arrow(metric.higher_is_better)}", *(f"{one:.4f}" for one in values)]
        for metric, *values in separate.metrics
    ]
    rows += [
        ["parameters", *(f"{one:,}" for one in separate.parameters)],
        ["size kB", *(f"{one / 1000:.0f}" for one in separate.size_bytes)],
        ["p50 ms", *(f"{one:.3f}" for one in separate.p50_ms)],
    ]
    print_table(
        f"One {separate.precision} file for all tasks, against one for each",
        ["", "shared", "separate"],
        rows,
    )
    size = separate.size_bytes[0] / separate.size_bytes[1]
    click.echo(f"Shared: size {size:.2f}x, p50 {separate.time_ratio:.2f}x of the separate files'")


def as_json(result: ConvertResult, separate: Separate | None = None) -> dict[str, Any]:
    """Return all that was measured as plain JSON values."""
    return {
        "separate": None if separate is None else asdict(separate),
        "folder": str(result.folder),
        "model": str(result.model_path),
        "parameters": result.parameters,
        "recipe": result.recipe.values(),
        "pruning": None if result.pruning is None else result.pruning.as_json(),
        "quantize_aware": None if result.aware is None else result.aware.as_json(),
        "mixed_precision": None if result.mixed is None else result.mixed.as_json(),
        "keras": result.float_scores,
        "baseline": result.baseline,
        "bundles": {
            precision: {
                "folder": str(bundle.folder),
                "model_sha256": bundle.sha256,
                "model_size_bytes": bundle.model_bytes,
                "verified": all(check.passed for check in result.checks[precision]),
                "evaluation": result.evaluations[precision],
                "benchmark": result.benchmarks[precision],
            }
            for precision, bundle in result.bundles.items()
        },
        "calibration": None if result.doctor is None else result.doctor.as_json(),
        "skipped": result.skipped,
        "label_problems": result.label_problems,
        "seconds": result.seconds,
        "failures": failures(result),
    }


def failures(result: ConvertResult) -> list[str]:
    """Return what was checked and does not hold, a sentence each."""
    task = get_task(result.recipe.task, result.recipe.head.options)
    found = [
        f"{precision}: {check.name}: {check.detail}"
        for precision, checks in result.checks.items()
        for check in checks
        if not check.passed
    ]
    for precision, evaluation in result.evaluations.items():
        try:
            require_small_drop(task, result.float_scores["metrics"], evaluation["metrics"])
        except CheckFailedError as error:
            found.append(f"{precision}: {error}")
    return found


def _row(
    title: str,
    metrics: Mapping[str, float],
    task: Task,
    size: int | None,
    bench: Mapping[str, Any] | None,
) -> list[str]:
    values = [f"{metrics[metric.name]:.4f}{_unit(metric.unit)}" for metric in task.metrics]
    if bench is None or size is None:
        return [title, *values, _NONE, _NONE, _NONE, _NONE]
    last = bench["repeats"][-1]
    return [
        title,
        *values,
        f"{size / 1000:.0f}",
        f"{bench['latency_ms']['p50']:.3f}",
        f"{bench['latency_ms']['p90']:.3f}",
        f"{last['delegated_nodes']}/{last['nodes']}",
    ]


def _notes(result: ConvertResult) -> list[str]:
    counts, ranges = result.float_scores["counts"], result.float_scores["ranges"]
    first = next(iter(result.benchmarks.values()))["repeats"][0]
    runtime = first["runtime"]
    notes = [
        "Test set: "
        + ", ".join(
            [
                *(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n),
                *(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in ranges.items()),
            ]
        ),
        f"Timed with {runtime['name']} {runtime['version']}, {first['threads']} thread(s), "
        f"{len(next(iter(result.benchmarks.values()))['repeats'])} rounds of {first['runs']} runs "
        "in turn",
    ]
    notes += _compared(result)
    if result.aware is not None:
        notes.append(str(result.aware))
    if result.mixed is not None:
        kept = [layer.name for layer in result.mixed.kept]
        notes.append(
            f"Mixed precision: {counted(len(kept), 'layer')} of the int8 file stayed float"
            f"{': ' + ', '.join(kept) if kept else ''}; on samples held out of training "
            f"{result.mixed.metric} drops by {rounded(result.mixed.drop, 4):.4f}, and may by "
            f"{result.mixed.max_drop:.4f}"
        )
    notes += [
        f"{precision}: p50 varied by {bench['spread_percent']:.0f} % between rounds: "
        "this machine was busy, trust the ratio rather than the milliseconds"
        for precision, bench in result.benchmarks.items()
        if bench["unstable"]
    ]
    if result.doctor is not None:
        warnings = [
            f"{one.check}: {one.text}; {one.advice}"
            for one in result.doctor.findings
            if one.severity == "warning"
        ]
        notes += _findings("warnings about the calibration images", warnings)
    notes += _findings("training samples were skipped", result.skipped)
    notes += _findings("label problems in the training samples", result.label_problems)
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    return [*notes, f"Took: {stages}"]


def _findings(title: str, findings: Sequence[str]) -> list[str]:
    if not findings:
        return []
    shown = [f"  {finding}" for finding in findings[:_SHOWN]]
    more = len(findings) - len(shown)
    return [
        f"{len(findings):,} {title}:",
        *shown,
        *([f"  and {more:,} more; --json lists them all"] if more else []),
    ]


def _compared(result: ConvertResult) -> list[str]:
    task = get_task(result.recipe.task, result.recipe.head.options)
    reference = result.float_scores["metrics"]
    judged = [metric for metric in task.metrics if metric.allowed_drop is not None]
    lines = []
    for precision, bundle in result.bundles.items():
        metrics = result.evaluations[precision]["metrics"]
        if precision == "float32":
            continue
        parts = [_change(metric, reference, metrics) for metric in judged]
        if "float32" in result.bundles:
            full = result.bundles["float32"]
            size = bundle.model_bytes / full.model_bytes
            speed = (
                result.benchmarks[precision]["ratio_to_first"]
                / result.benchmarks["float32"]["ratio_to_first"]
            )
            parts += [f"size {size:.2f}x", f"p50 {speed:.2f}x of float32"]
        lines.append(f"{precision} against float: {', '.join(parts)}")
    if result.baseline:
        metric = task.metrics[0]
        trivial, own = result.baseline["metrics"][metric.name], reference[metric.name]
        times = f" ({own / trivial:.2f}x)" if trivial else ""
        lines.append(
            f"Keras against the baseline: {metric.title} {own:.4f} instead of {trivial:.4f}{times}"
        )
    return lines


def _change(metric: Metric, reference: Mapping[str, float], metrics: Mapping[str, float]) -> str:
    difference = metric.difference(reference[metric.name], metrics[metric.name])
    return f"{metric.title} {metric.format(difference)}"


def _arrow(higher_is_better: bool) -> str:
    return " ↑" if higher_is_better else " ↓"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
