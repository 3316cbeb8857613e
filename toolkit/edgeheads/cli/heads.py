"""`edgeheads heads`."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option, parse_size
from edgeheads.errors import MissingDependencyError


@click.command()
@click.option("--backbone", default="mobilenet_v2", show_default=True, help="Below the heads.")
@click.option("--width", default=1.0, show_default=True, help="Multiplies its channels.")
@click.option("--input-size", default="224", show_default=True, help="Pixels: 224, or 192x256.")
@click.option(
    "--repeats", type=click.IntRange(2), default=5, show_default=True, help="Rounds, in turn."
)
@device_options
@json_option
def heads(
    backbone: str,
    width: float,
    input_size: str,
    repeats: int,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show what each task's efficient head costs on a backbone, as int8."""
    from edgeheads.nativelog import captured_native_log
    from edgeheads.runtime import DeviceSession

    size = parse_size(input_size)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with (
        DeviceSession(chosen_device(device, threads)) as session,
        terminal_progress(silent=as_json) as progress,
    ):
        try:
            with captured_native_log():
                from edgeheads.bench.heads import measure_heads
        except ImportError as error:
            package = error.name or str(error)
            raise MissingDependencyError(package, "convert", "measuring the heads") from None
        costs = measure_heads(
            backbone, size, session, width=width, repeats=repeats, progress=progress
        )
    if as_json:
        print_json([asdict(cost) for cost in costs])
        return
    print_table(
        f"Efficient heads on {backbone} {width:g} at {size[0]}x{size[1]}, int8",
        ["head", "parameters", "MMACs", "file kB", "p50 ms", "to backbone", "integer", "delegated"],
        [
            [
                cost.name,
                f"{cost.parameters:,}",
                f"{cost.macs / 1e6:.1f}",
                f"{cost.size_bytes / 1000:.0f}",
                f"{cost.p50_ms:.2f}",
                f"{cost.ratio_to_backbone:.2f}x",
                f"{cost.integer_nodes}/{cost.nodes}",
                f"{cost.delegated_nodes}/{cost.nodes}",
            ]
            for cost in costs
        ],
    )
    click.echo(
        "Parameters and MACs are the head's own; the file and p50 include the backbone. "
        "The weights are random."
    )
