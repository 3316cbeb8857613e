"""`edgeheads evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", help="Labelled images [default: what it was trained for].")
@click.option("--format", "data_format", metavar="NAME", help="Of DIR [default: its looks].")
@device_options
@json_option
def evaluate(
    bundle: Path,
    data: str | None,
    data_format: str | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a Bundle's file on the test split of labelled images."""
    from edgeheads.bundle import Bundle
    from edgeheads.evaluate import bundle_task
    from edgeheads.evaluate import evaluate as run
    from edgeheads.runtime import DeviceSession

    opened = Bundle(bundle)
    section = None
    if data or data_format:
        stored = opened.recipe["data"]
        changes = {"source": data or stored["source"], "format": data_format or "auto"}
        section = {**stored, **changes}
    with (
        DeviceSession(chosen_device(device, threads)) as session,
        terminal_progress(silent=as_json) as progress,
    ):
        result = run(opened, session, data=section, progress=progress)
    if as_json:
        print_json({"model_sha256": opened.sha256, **result})
        return
    task = bundle_task(opened)
    scored = {f"{opened.precision} .tflite": result["metrics"]}
    if result["baseline"]:
        scored[result["baseline"]["kind"]] = result["baseline"]["metrics"]
    print_table(
        f"{bundle} on {result['data']['source']}",
        ["", *(metric.title for metric in task.metrics)],
        [
            [title, *(f"{metrics[one.name]:.4f} {one.unit}".strip() for one in task.metrics)]
            for title, metrics in scored.items()
        ],
    )
    click.echo(f"{result['counts']}; {result['protocol']}")
