"""`edgeheads bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeheads.cli.console import print_json, print_table, short_path, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option
from edgeheads.errors import EdgeheadsError


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--runs", type=click.IntRange(1), default=128, show_default=True, help="Counted runs."
)
@click.option(
    "--warmup", type=click.IntRange(0), default=10, show_default=True, help="Runs not counted."
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Stop a round early after this long.",
)
@click.option(
    "--repeats", type=click.IntRange(2), default=3, show_default=True, help="Rounds, in turn."
)
@device_options
@json_option
def bench(
    models: tuple[Path, ...],
    runs: int,
    warmup: int,
    max_seconds: float,
    repeats: int,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Time MODELS (Bundles, or .tflite files), one after the other in several rounds."""
    from edgeheads.bench.latency import compare
    from edgeheads.bundle import Bundle
    from edgeheads.runtime import BenchSettings, DeviceSession

    settings = BenchSettings(warmup_runs=warmup, runs=runs, max_seconds=max_seconds)
    bundles = {str(path): Bundle(path) for path in models if path.suffix != ".tflite"}
    files = {str(path): path for path in models}
    files |= {name: bundle.model_path for name, bundle in bundles.items()}
    if len(files) != len(models):
        raise EdgeheadsError(f"each model may be named once, received {' '.join(map(str, models))}")
    with (
        DeviceSession(chosen_device(device, threads)) as session,
        terminal_progress(silent=as_json) as progress,
        progress.step(f"Timing {len(files)} file(s), {repeats} rounds"),
    ):
        results = compare(session, files, settings, repeats)
        for name, bundle in bundles.items():
            bundle.save_measurement("benchmark", {**results[name], "device": session.profile.name})
    if as_json:
        print_json(results)
    else:
        _print(results)


def _print(results: dict[str, dict[str, Any]]) -> None:
    statistics = ("p50", "p90", "p99", "mean", "std", "min", "max")
    first = next(iter(results.values()))["repeats"][0]
    print_table(
        f"Latency in ms, {first['runtime']['name']} {first['runtime']['version']}, "
        f"{first['threads']} thread(s), {first['delegate']}",
        ["", *statistics, "to first", "runs", "spread", "delegated"],
        [
            [
                short_path(name),
                *(f"{result['latency_ms'][key]:.3f}" for key in statistics),
                f"{result['ratio_to_first']:.2f}x",
                " ".join(str(one["runs"]) for one in result["repeats"]),
                f"{result['spread_percent']:.0f} %{' unstable' if result['unstable'] else ''}",
                f"{result['repeats'][0]['delegated_nodes']}/{result['repeats'][0]['nodes']}",
            ]
            for name, result in results.items()
        ],
    )
    print_table(
        "Start and memory, first round",
        ["", "create ms", "first run ms", "warm-up ms", "warm-up runs", "peak MB", "model's MB"],
        [
            [
                short_path(name),
                f"{one['cold_start_ms']:.1f}",
                f"{one['first_inference_ms']:.2f}",
                f"{one['warmup_ms']:.0f}",
                f"{one['warmup_runs']}",
                _megabytes(one["peak_memory_bytes"]),
                _megabytes(one["model_memory_bytes"]),
            ]
            for name, one in ((name, result["repeats"][0]) for name, result in results.items())
        ],
    )
    click.echo(f"Protocol: {first['protocol']}")


def _megabytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 1e6:.1f}"
