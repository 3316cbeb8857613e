"""`edgeheads bench`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import terminal_progress
from edgeheads.cli.options import chosen_devices, devices_options, json_option
from edgeheads.errors import EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.bench.job import BenchPlan
    from edgeheads.bundle import Bundle
    from edgeheads.device import DeviceProfile

_MAX_THREADS = 256


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(["quick", "normal"]),
    default="quick",
    show_default=True,
    help="128 runs in at most 10 s a round, or at least 1024 runs and 60 s.",
)
@click.option("--runs", type=click.IntRange(1), help="Counted runs [default: the mode's].")
@click.option("--warmup", type=click.IntRange(0), help="Runs not counted [default: 10].")
@click.option(
    "--max-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Stop a round early after this long [default: the mode's].",
)
@click.option(
    "--repeats", type=click.IntRange(2), default=3, show_default=True, help="Rounds, in turn."
)
@click.option("--threads", metavar="N[,N...]", help="Of the interpreter; several are compared.")
@click.option(
    "--sustained",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="Then run each model without a pause, and draw its latency over time.",
)
@click.option("--cross-check", is_flag=True, help="Ask ai-edge-litert's own tool, too.")
@click.option("--profile-ops", is_flag=True, help="Time every operation.")
@click.option(
    "--benchmark-model",
    metavar="PATH",
    help="Time with this program on the device, TensorFlow Lite's own, where there is no Python.",
)
@click.option("--allow-fallback", is_flag=True, help="Accept nodes outside the delegate.")
@devices_options
@json_option
def bench(
    models: tuple[Path, ...],
    mode: str,
    runs: int | None,
    warmup: int | None,
    max_seconds: float | None,
    repeats: int,
    threads: str | None,
    sustained: float | None,
    cross_check: bool,
    profile_ops: bool,
    benchmark_model: str | None,
    allow_fallback: bool,
    devices: tuple[str, ...],
    hosts: tuple[str, ...],
    serials: tuple[str, ...],
    python: str | None,
    as_json: bool,
) -> None:
    """Time MODELS (Bundles, or .tflite files) in turn, on one device or on several at once.

    Name several devices with several --device; their --host and --serial follow in the same
    order. A device that fails does not lose the others' results; the exit code is then 3.
    """
    from edgeheads.bench.fleet import on_every_device
    from edgeheads.bench.job import BenchPlan, bench_device
    from edgeheads.bench.native_tool import open_bench_session
    from edgeheads.bench.sustained import require_plotting
    from edgeheads.cli.bench_report import print_benchmarks

    changes = {"runs": runs, "warmup_runs": warmup, "max_seconds": max_seconds}
    plan = _changed(
        BenchPlan(
            repeats=repeats,
            threads=_thread_counts(threads),
            sustained_minutes=sustained or 0.0,
            cross_check=cross_check,
            profile_ops=profile_ops,
            allow_fallback=allow_fallback,
        ),
        mode,
        {name: value for name, value in changes.items() if value is not None},
    )
    opened = _opened(models)
    if sustained:
        require_plotting()
    profiles = chosen_devices(devices, None, hosts, serials, python)
    if benchmark_model:
        profiles = [replace(profile, benchmark_model=benchmark_model) for profile in profiles]
    with terminal_progress(silent=as_json) as progress:

        def work(profile: DeviceProfile, cancelled: Event) -> dict[str, dict[str, Any]]:
            with open_bench_session(profile, cancelled) as session:
                return bench_device(session, opened, plan, progress)

        fleet = on_every_device(profiles, work)
    print_benchmarks(fleet, as_json)
    fleet.require_all()


def _opened(models: tuple[Path, ...]) -> dict[str, Bundle | Path]:
    from edgeheads.bundle import Bundle

    opened = {str(path): path if path.suffix == ".tflite" else Bundle(path) for path in models}
    if len(opened) != len(models):
        raise EdgeheadsError(f"each model may be named once, received {' '.join(map(str, models))}")
    return opened


def _changed(plan: BenchPlan, mode: str, changes: dict[str, Any]) -> BenchPlan:
    """Return the plan with a mode's settings and the changes to them."""
    from edgeheads.bench.job import MODES

    settings = MODES[mode]
    if "max_seconds" in changes:
        changes["min_seconds"] = min(settings.min_seconds, changes["max_seconds"])
    return replace(plan, mode="custom" if changes else mode, settings=replace(settings, **changes))


def _thread_counts(text: str | None) -> tuple[int, ...]:
    """Return the numbers of "4" or "1,2,4"."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    counts = tuple(int(part) for part in parts if part.isdecimal())
    if len(counts) != len(parts) or not all(1 <= count <= _MAX_THREADS for count in counts):
        raise EdgeheadsError(
            f"--threads must be one number or several, like 1,2,4, each between 1 and "
            f"{_MAX_THREADS}, received {text!r}"
        )
    if len(set(counts)) != len(counts):
        raise EdgeheadsError(f"--threads must name each number once, received {text!r}")
    return counts
