"""What `edgeheads train` prints at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from edgeheads.cli.console import print_table
from edgeheads.tasks import get_task

if TYPE_CHECKING:
    from edgeheads.tasks.base import Metric, Task
    from edgeheads.training.run import TrainResult

__all__ = ["print_result"]

_LAST = 20


def print_result(result: TrainResult) -> None:
    """Print the metrics, how fast the training was, where its files are, and what to do next."""
    task = get_task(result.recipe.task, result.recipe.head.options)
    history, recipe = result.history, result.recipe
    height, width = recipe.input_size
    rows = []
    if history.best is not None:
        best = history.validations[history.best]
        rows.append([f"validation, step {best.step}", *_values(task, best.metrics)])
    rows.append(["test", *_values(task, result.scores["metrics"])])
    print_table(
        f"{task.title}, {recipe.backbone.name} {recipe.backbone.width:g}, "
        f"{height}x{width}, {result.parameters:,} parameters",
        ["", *(_heading(metric) for metric in task.metrics)],
        rows,
    )
    for line in _notes(result):
        click.echo(line)
    names = " ".join(["model.keras", "recipe.yaml", "training.csv", "curves.png"])
    click.echo(f"{result.folder}: {names}")
    data = "" if recipe.data.source == "synthetic" else f" --data {shlex.quote(recipe.data.source)}"
    click.echo(f"Next: edgeheads convert --model {shlex.quote(str(result.model_path))}{data}")


def _heading(metric: Metric) -> str:
    return f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"


def _values(task: Task, metrics: Mapping[str, float]) -> list[str]:
    return [
        f"{metrics[metric.name]:.4f}" + (f" {metric.unit}" if metric.unit else "")
        for metric in task.metrics
    ]


def _notes(result: TrainResult) -> list[str]:
    history = result.history
    planned = result.recipe.training.steps
    trained, validated = result.samples
    phases = ", ".join(f"{phase.steps} {phase.title}" for phase in result.phases)
    first, last = history.losses[:_LAST], history.losses[-_LAST:]
    notes = [
        f"Steps: {history.step} of {planned} ({phases}); loss {sum(first) / len(first):.3f} over "
        f"the first {len(first)}, {sum(last) / len(last):.3f} over the last",
        f"Samples: {trained} trained on, {validated} validated on"
        + (f", {len(result.skipped)} skipped" if result.skipped else ""),
    ]
    if history.stopped:
        notes.append(
            f"Stopped early: {result.recipe.training.patience} validations without a better value"
        )
    if result.seconds_per_step:
        notes.append(
            f"Speed: {result.seconds_per_step * 1000:.0f} ms a step (median), "
            f"{result.images_per_second:.0f} images/s, {result.devices}"
        )
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    return [*notes, f"Took: {stages}"]
