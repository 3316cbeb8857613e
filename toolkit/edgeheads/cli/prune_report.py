"""What `edgeheads prune` prints at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edgeheads.cli.console import print_table
from edgeheads.tasks import get_task
from edgeheads.tasks.base import Metric

if TYPE_CHECKING:
    from edgeheads.compression.prune.report import PruneReport, Stage
    from edgeheads.recipe import Recipe

__all__ = ["notes", "print_report"]

_NONE = "–"
_SHOWN = 4


def print_report(report: PruneReport, recipe: Recipe | None) -> None:
    """Print the table of the stages, and what it means."""
    metrics = judged(report, recipe)
    titles = [
        f"{one.title} {'↑' if one.higher_is_better else '↓'}" if one else name
        for name, one in metrics.items()
    ]
    precisions = list(report.stages[0].ratio)
    columns = ["", *titles, "MMACs", "parameters", "zeros"]
    for precision in precisions:
        columns += [f"{precision} kB", "zipped kB", "p50 ms", "of original"]
    rows = [_row(stage, list(metrics), precisions) for stage in report.stages]
    wanted = f", {report.target}" if report.target else ""
    timed = f", timed on {report.device}" if report.device else ""
    print_table(f"Pruning{wanted}{timed}", columns, rows)
    for line in notes(report, recipe):
        click.echo(line)


def judged(report: PruneReport, recipe: Recipe | None) -> dict[str, Metric | None]:
    """Return the metrics to show: those that the task's files are held to, or all there are."""
    if recipe is None:
        return dict.fromkeys(report.stages[0].metrics)
    task = get_task(recipe.task, recipe.head.options)
    return {metric.name: metric for metric in task.metrics if metric.allowed_drop is not None}


def notes(report: PruneReport, recipe: Recipe | None) -> list[str]:
    """Return what pruning cost and bought, as sentences."""
    first, last = report.stages[0], report.stages[-1]
    lines = [
        f"Bought: {last.macs / first.macs:.2f}x of the MACs, "
        f"{last.parameters / first.parameters:.2f}x of the parameters"
        + "".join(
            f", {name} {1 / ratio:.2f}x as fast and "
            f"{last.files[name].zipped / first.files[name].zipped:.2f}x of the zipped bytes"
            for name, ratio in last.ratio.items()
        )
    ]
    before, after = first.metrics, last.metrics
    changes = [
        f"{metric.title} {metric.format(metric.difference(before[name], after[name]))}"
        for name, metric in judged(report, recipe).items()
        if metric is not None and name in after
    ]
    if changes:
        lines.append(f"Cost: {', '.join(changes)}")
    for precision in report.bought_nothing():
        lines.append(
            f"Pruning bought no milliseconds as {precision}: p50 is {last.ratio[precision]:.2f}x "
            "of the original's"
        )
    if (share := report.missed()) is not None:
        lines.append(
            f"Target missed: the last measurement is {share:.3f}x of the original's, above "
            f"{report.target}"
        )
    for text in dict.fromkeys(report.refused.values()):
        names = [name for name, why in report.refused.items() if why == text]
        lines.append(f"Not measured as {', '.join(names)}: {text}")
    if report.unstable:
        lines.append(
            f"p50 varied between rounds ({', '.join(report.unstable)}): this machine was busy, "
            "trust the ratios rather than the milliseconds"
        )
    if report.protected:
        some = [f"{name} ({why})" for name, why in list(report.protected.items())[:_SHOWN]]
        more = len(report.protected) - len(some)
        lines.append(f"Kept whole: {', '.join(some)}{f', and {more} more' if more > 0 else ''}")
    return lines


def _row(stage: Stage, metrics: Sequence[str], precisions: Sequence[str]) -> list[str]:
    row = [
        stage.title,
        *(f"{stage.metrics[name]:.4f}" for name in metrics),
        f"{stage.macs / 1e6:.2f}",
        f"{stage.parameters:,}",
        f"{stage.sparsity:.0%}",
    ]
    for name in precisions:
        if name not in stage.files:
            row += [_NONE] * 4
            continue
        size = stage.files[name]
        row += [
            f"{size.raw / 1000:.0f}",
            f"{size.zipped / 1000:.0f}",
            f"{stage.p50_ms[name]:.3f}",
            f"{stage.ratio[name]:.2f}x",
        ]
    return row
