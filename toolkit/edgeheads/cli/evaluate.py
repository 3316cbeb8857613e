"""`edgeheads evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option, link_options

if TYPE_CHECKING:
    from edgeheads.bundle import Bundle
    from edgeheads.tasks.base import Metric, Task

_STAGES = {
    "keras-float": "float Keras",
    "tflite-host": "{precision} .tflite on this machine",
    "tflite-device": "{precision} .tflite on {label}",
}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", help="Labelled images [default: what it was trained for].")
@click.option("--format", "data_format", metavar="NAME", help="Of DIR [default: its looks].")
@click.option("--no-host", is_flag=True, help="Do not score another device's file here, too.")
@click.option(
    "--allow-golden-mismatch", is_flag=True, help="Score a device that computes something else."
)
@device_options
@link_options
@json_option
def evaluate(
    bundle: Path,
    data: str | None,
    data_format: str | None,
    no_host: bool,
    allow_golden_mismatch: bool,
    device: str | None,
    threads: int | None,
    host: str | None,
    serial: str | None,
    python: str | None,
    as_json: bool,
) -> None:
    """Score a Bundle's file on the test split of labelled images, where it will run.

    The images go to the device in chunks, and the metrics are computed here. Interrupted or cut
    off, the same command goes on where it was.
    """
    from edgeheads.bundle import Bundle
    from edgeheads.evaluate import evaluate as run
    from edgeheads.runtime import DeviceSession

    opened = Bundle(bundle)
    section = None
    if data or data_format:
        stored = opened.recipe["data"]
        changes = {"source": data or stored["source"], "format": data_format or "auto"}
        section = {**stored, **changes}
    with (
        DeviceSession(chosen_device(device, threads, host, serial, python)) as session,
        terminal_progress(silent=as_json) as progress,
    ):
        result = run(
            opened,
            session,
            data=section,
            progress=progress,
            resume=True,
            on_host=not no_host,
            require_golden=not allow_golden_mismatch,
        )
    if as_json:
        print_json({"model_sha256": opened.sha256, **result})
    else:
        _print(opened, result)


def _print(bundle: Bundle, result: dict[str, Any]) -> None:
    from edgeheads.evaluate import bundle_task

    task = bundle_task(bundle)
    print_table(
        f"{bundle.folder} on {result['data']['source']}; in parentheses: against the row above",
        ["", *(metric.title for metric in task.metrics)],
        [*_stage_rows(bundle, task, result), *_baseline_rows(task, result)],
    )
    if result["accuracy_stages"][0]["stage"] != "keras-float":
        click.echo("The float Keras model was not scored on these images.")
    if result["resumed_images"]:
        click.echo(f"{result['resumed_images']} predictions are from an interrupted run.")
    for check in result["golden"]["checks"]:
        verdict = "" if check["passed"] else "FAILED: "
        click.echo(
            f"Golden images on {result['label']}: {verdict}{check['name']}, {check['detail']}"
        )
    click.echo(f"{result['counts']}; {result['protocol']}")


def _stage_rows(bundle: Bundle, task: Task, result: dict[str, Any]) -> list[list[str]]:
    rows, before = [], None
    for stage in result["accuracy_stages"]:
        title = _STAGES[stage["stage"]].format(precision=bundle.precision, label=stage["label"])
        rows.append([title, *(_cell(one, stage["metrics"], before) for one in task.metrics)])
        before = stage["metrics"]
    return rows


def _baseline_rows(task: Task, result: dict[str, Any]) -> list[list[str]]:
    baseline = result["baseline"]
    if not baseline:
        return []
    return [[baseline["kind"], *(_cell(one, baseline["metrics"], None) for one in task.metrics)]]


def _cell(metric: Metric, metrics: dict[str, float], before: dict[str, float] | None) -> str:
    text = f"{metrics[metric.name]:.4f} {metric.unit}".strip()
    if before is None:
        return text
    change = metric.difference(before[metric.name], metrics[metric.name])
    return f"{text} ({metric.format(change)})"
