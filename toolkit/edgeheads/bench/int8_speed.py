"""What int8 buys: the time of every task's network in float32 over its time in int8.

python -m edgeheads.bench.int8_speed --backbones mobilenet_v2 --tasks segmentation,depth
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click

from edgeheads.bench.latency import IN_TURN, compare
from edgeheads.bench.standalone import run_command
from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option, parse_size
from edgeheads.errors import MissingDependencyError, unknown_name
from edgeheads.export.fast_int8 import Speed, speed_for
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.task_type import TaskType

__all__ = ["BACKBONES", "TASKS", "Speedup", "measure_speedups", "summarize"]

TASKS = (
    TaskType.CLASSIFICATION,
    TaskType.DETECTION,
    TaskType.SEGMENTATION,
    TaskType.DEPTH_ESTIMATION,
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.KEYPOINT_DETECTION,
    TaskType.MULTI_TASK,
)

# Those made for phones.
BACKBONES = (
    "mobilenet_v2",
    "mobilenet_v3_small_minimalistic",
    "mobilenet_v3_small",
    "mobilenet_v3_large_minimalistic",
    "mobilenet_v3_large",
    "efficientnet_b0",
)

_LEVELS = ("P2", "P3", "P4", "P5")


@dataclass(frozen=True)
class Speedup:
    """One network, timed in both precisions in turn.

    Attributes:
        task: its efficient head's.
        backbone: below the head.
        float32_ms: p50, the median over the rounds.
        plain_ms: of the int8 file as the quantizer makes it, likewise.
        int8_ms: of the int8 file that is made fast for the device; see `export.fast_int8`.
        plain_ratio: float32 over the plain file, like `ratio`.
        ratio: float32 over int8 of the same round, the median over the rounds; 2 is twice as fast.
        lowest: that of the round with the lowest.
        highest: that of the round with the highest.
        integer_nodes: of the int8 file.
        delegated_nodes: likewise.
        nodes: likewise.
    """

    task: str
    backbone: str
    float32_ms: float
    plain_ms: float
    int8_ms: float
    plain_ratio: float
    ratio: float
    lowest: float
    highest: float
    integer_nodes: int
    delegated_nodes: int
    nodes: int


def measure_speedups(
    tasks: Sequence[TaskType],
    backbones: Sequence[str],
    size: tuple[int, int],
    session: DeviceSession,
    *,
    width: float = 1.0,
    rounds: int = 5,
    settings: BenchSettings = IN_TURN,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> list[Speedup]:
    """Time every task's efficient head on every backbone, float32 and int8 in turn.

    The weights are random: they change neither the operations nor the time.

    Args:
        tasks: what the heads are for.
        backbones: keys of `edgeheads.backbones.BACKBONES`.
        size: (height, width) of the input in pixels.
        session: the device.
        width: of the backbones.
        rounds: of float32, int8, float32, ...; at least 2.
        settings: of each measurement.
        folder: where the files stay, and are found again by a later call; None keeps none.
        progress: where to report.

    Returns:
        A row for each pair, backbone by backbone.
    """
    from edgeheads.backbones.registry import BACKBONES as KNOWN

    for name in backbones:
        if name not in KNOWN:
            raise unknown_name("backbone", name, KNOWN)
    speed = speed_for(session.profile)
    pairs = [(task, backbone) for backbone in backbones for task in tasks]
    rows = []
    with (
        _kept(folder) as place,
        (progress or SilentProgress()).step("Timing float32 and int8", len(pairs)) as step,
    ):
        for task, backbone in pairs:
            files = write_files(task, backbone, size, width, speed, place)
            results = compare(session, files, settings, rounds)
            rows.append(_row(task, backbone, results, session.inspect(files["int8"])))
            step.advance(note=f"{task.value} on {backbone}: {rows[-1].ratio:.2f}x")
    return rows


def summarize(rows: Sequence[Speedup]) -> dict[str, Any]:
    """Return the geometric mean of the ratios, the lowest, and whose that is."""
    slowest = min(rows, key=lambda row: row.ratio)
    return {
        "geometric_mean": geometric_mean(row.ratio for row in rows),
        "plain_geometric_mean": geometric_mean(row.plain_ratio for row in rows),
        "lowest": slowest.ratio,
        "lowest_of": f"{slowest.task} on {slowest.backbone}",
    }


def write_files(
    task: TaskType,
    backbone: str,
    size: tuple[int, int],
    width: float,
    speed: Speed,
    folder: Path,
) -> dict[str, Path]:
    """Return a network's files, "float32", "plain" and "int8", made where they are not there."""
    from edgeheads.backbones import create_backbone
    from edgeheads.bench.heads import edge_tensors, int8_for_timing, seen_levels
    from edgeheads.export.compact import compact
    from edgeheads.export.tflite import convert_to_float_tflite
    from edgeheads.model import build_model, make_head

    stem = f"{task.value}-{backbone}_{width:g}-{size[0]}x{size[1]}"
    files = {name: folder / f"{stem}-{name}.tflite" for name in ("float32", "plain", "int8")}
    if all(path.exists() for path in files.values()):
        return files
    levels = seen_levels(task, _LEVELS)
    network = create_backbone(backbone, (*size, 3), width=width, levels=levels)
    head = make_head(network, task)
    model = build_model(network, head)
    content = convert_to_float_tflite(model.inputs[0], edge_tensors(model, head))
    made = {
        "float32": compact(content),
        "plain": int8_for_timing(content, Speed()),
        "int8": int8_for_timing(content, speed),
    }
    for name, path in files.items():
        # A run that is killed must not leave half a file for the next one.
        draft = path.with_name(f".{path.name}")
        draft.write_bytes(made[name])
        draft.replace(path)
    return files


def _row(
    task: TaskType, backbone: str, results: dict[str, dict[str, Any]], facts: dict[str, Any]
) -> Speedup:
    ratios = [1 / ratio for ratio in results["int8"]["ratios_to_first"]]
    return Speedup(
        task=task.value,
        backbone=backbone,
        float32_ms=results["float32"]["latency_ms"]["p50"],
        plain_ms=results["plain"]["latency_ms"]["p50"],
        int8_ms=results["int8"]["latency_ms"]["p50"],
        plain_ratio=1 / results["plain"]["ratio_to_first"],
        ratio=1 / results["int8"]["ratio_to_first"],
        lowest=min(ratios),
        highest=max(ratios),
        integer_nodes=facts["integer_nodes"],
        delegated_nodes=facts["delegated_nodes"],
        nodes=facts["nodes"],
    )


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as temporary:
        yield Path(temporary)


@click.command()
@click.option("--tasks", help="Separated by commas [default: the seven].")
@click.option("--backbones", help="Separated by commas [default: those made for phones].")
@click.option("--width", default=1.0, show_default=True, help="Multiplies a backbone's channels.")
@click.option("--input-size", default="224", show_default=True, help="Pixels: 224, or 192x256.")
@click.option("--rounds", type=click.IntRange(2), default=5, show_default=True, help="In turn.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder in which the files stay; those that are there are not made again.",
)
@device_options
@json_option
def int8_speed(
    tasks: str | None,
    backbones: str | None,
    width: float,
    input_size: str,
    rounds: int,
    keep: Path | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Show how much faster int8 is than float32: efficient heads on backbones made for phones."""
    from edgeheads.nativelog import captured_native_log

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    size = parse_size(input_size)
    chosen = [TaskType.parse(name) for name in tasks.split(",")] if tasks else TASKS
    names = backbones.split(",") if backbones else BACKBONES
    try:
        with captured_native_log():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    except ImportError as error:
        package = error.name or str(error)
        raise MissingDependencyError(package, "convert", "making the files to time") from None
    with (
        DeviceSession(chosen_device(device, threads)) as session,
        terminal_progress(silent=as_json) as progress,
    ):
        rows = measure_speedups(
            chosen,
            names,
            size,
            session,
            width=width,
            rounds=rounds,
            folder=keep,
            progress=progress,
        )
    summary = summarize(rows)
    if as_json:
        print_json({"rows": [asdict(row) for row in rows], **summary})
        return
    _print(rows, summary, f"width {width:g}, {size[0]}x{size[1]}, {rounds} rounds")


def _print(rows: Sequence[Speedup], summary: dict[str, Any], how: str) -> None:
    print_table(
        f"float32 over int8, {how}",
        [
            "backbone",
            "task",
            "float32 ms",
            "plain ms",
            "int8 ms",
            "plain",
            "faster",
            "rounds",
            "integer",
            "delegated",
        ],
        [
            [
                row.backbone,
                row.task,
                f"{row.float32_ms:.2f}",
                f"{row.plain_ms:.2f}",
                f"{row.int8_ms:.2f}",
                f"{row.plain_ratio:.2f}x",
                f"{row.ratio:.2f}x",
                f"{row.lowest:.2f}-{row.highest:.2f}",
                f"{row.integer_nodes}/{row.nodes}",
                f"{row.delegated_nodes}/{row.nodes}",
            ]
            for row in rows
        ],
    )
    click.echo(
        f"Geometric mean {summary['geometric_mean']:.2f}x (plain "
        f"{summary['plain_geometric_mean']:.2f}x), lowest {summary['lowest']:.2f}x "
        f"({summary['lowest_of']}). The weights are random."
    )


def main() -> None:
    """Run the command; a wrong request is one line, without a traceback."""
    run_command(int8_speed)


if __name__ == "__main__":
    main()
