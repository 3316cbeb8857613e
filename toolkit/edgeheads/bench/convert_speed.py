"""What a conversion costs: a verified int8 Bundle against the bare converter, in one run.

python -m edgeheads.bench.convert_speed --images 64,128,512
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from edgeheads.bench.standalone import run_command
from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option, parse_size
from edgeheads.errors import EdgeheadsError, RuntimeFailureError

__all__ = ["KINDS", "measure", "measure_apart"]

# "bare": TFLiteConverter alone, from the model to bytes. "file": our int8 file, to bytes.
# "bundle": our file, written as a Bundle and verified.
KINDS = ("bare", "file", "bundle")

_STAGES = ("convert to int8", "verify and evaluate")


def measure_apart(kind: str, backbone: str, size: tuple[int, int], images: int) -> dict[str, float]:
    """Return what `measure` returns, of a process of its own: its peak memory is no one else's.

    Raises:
        RuntimeFailureError: the process ended without figures; the text has its last line.
    """
    request = json.dumps([kind, backbone, list(size), images])
    done = subprocess.run(
        [sys.executable, "-m", "edgeheads.bench.convert_speed", "--measure", request],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeFailureError(
            f"measuring {kind} ended with exit code {done.returncode}: {last}"
        ) from None
    return found


def measure(kind: str, backbone: str, size: tuple[int, int], images: int) -> dict[str, float]:
    """Convert a classifier to int8 once.

    The weights are random: they change neither the operations nor the time. The calibration
    images are rendered before the clock starts, the same ones for every kind.

    Args:
        kind: one of KINDS.
        backbone: a key of `edgeheads.backbones.BACKBONES`.
        size: (height, width) of the input in pixels.
        images: calibration images.

    Returns:
        "seconds", from the model to the result, for a Bundle with 8 test images evaluated; and
        "grown_mb", by how much the most memory ever held grew meanwhile, in units of 1 048 576
        bytes.

    Raises:
        EdgeheadsError: no such kind or backbone.
    """
    if kind not in KINDS:
        raise EdgeheadsError(f"kind must be one of {', '.join(KINDS)}, received {kind!r}")
    from edgeheads.edge_model import build
    from edgeheads.export.tflite import convert_plainly, convert_to_tflite
    from edgeheads.progress import SilentProgress
    from edgeheads.recipe import load_recipe
    from edgeheads.tasks import get_task
    from edgeheads.train import read_training_data, set_up_backend

    recipe = load_recipe("classification-mobilenet_v2_0.35-64").with_values(
        **{
            "input_size": list(size),
            "backbone": {"name": backbone},
            "data.train_samples": images,
            "data.test_samples": 8,
            "export.precisions": ["int8"],
            "export.calibration_samples": images,
        }
    )
    set_up_backend(recipe.seed)
    task = get_task(recipe.task, recipe.head.options)
    data = read_training_data(recipe, task, SilentProgress())
    edge = build(recipe, task, data.names)
    inputs = edge.inputs_of(data.samples)
    before, start = _peak_mb(), time.perf_counter()
    if kind == "bundle":
        seconds = _bundle_seconds(edge, recipe)
    elif kind == "file":
        convert_to_tflite(edge.model.inputs[0], edge.outputs, "int8", inputs)
        seconds = time.perf_counter() - start
    else:
        convert_plainly(edge.model.inputs[0], edge.outputs, inputs)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "grown_mb": _peak_mb() - before}


def _bundle_seconds(edge: Any, recipe: Any) -> float:
    from edgeheads.convert import convert
    from edgeheads.runtime import BenchSettings

    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        model = Path(folder, "given.keras")
        edge.model.save(model)
        quick = BenchSettings(
            warmup_runs=1, min_warmup_seconds=0.0, runs=3, max_seconds=1.0, sample_seconds=0.0
        )
        result = convert(recipe, Path(folder, "run"), model_file=model, bench_settings=quick)
    broken = [one.name for one in result.checks["int8"] if not one.passed]
    if broken:
        raise EdgeheadsError(f"the Bundle failed its verification: {', '.join(broken)}")
    return sum(result.seconds[stage] for stage in _STAGES)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, units of 1024 bytes elsewhere.
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


@click.command()
@click.option("--backbone", default="mobilenet_v2", show_default=True, help="Below the head.")
@click.option("--input-size", default="224", show_default=True, help="Pixels: 224, or 192x256.")
@click.option("--images", default="128", show_default=True, help="Counts, separated by commas.")
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Separated by commas.")
@click.option("--measure", "request", hidden=True, help="One measurement, in this process.")
@json_option
def convert_speed(
    backbone: str, input_size: str, images: str, kinds: str, request: str | None, as_json: bool
) -> None:
    """Compare a conversion with the bare converter's: time, and memory by number of images."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if request is not None:
        kind, name, size, count = json.loads(request)
        click.echo(json.dumps(measure(kind, name, tuple(size), count)))
        return
    chosen = parse_size(input_size)
    if not all(count.isdigit() and int(count) > 1 for count in images.split(",")):
        raise EdgeheadsError(f"--images must be counts of at least 2, received {images!r}")
    pairs = [(int(count), kind) for count in images.split(",") for kind in kinds.split(",")]
    rows: list[dict[str, Any]] = []
    with (
        terminal_progress(silent=as_json) as progress,
        progress.step("Converting, one after the other", len(pairs)) as step,
    ):
        for count, kind in pairs:
            rows.append(
                {"images": count, "kind": kind, **measure_apart(kind, backbone, chosen, count)}
            )
            step.advance(note=f"{kind}: {rows[-1]['seconds']:.1f} s")
    if as_json:
        print_json({"backbone": backbone, "size": chosen, "rows": rows})
        return
    bare = {row["images"]: row["seconds"] for row in rows if row["kind"] == "bare"}
    print_table(
        f"To int8, {backbone}, {chosen[0]}x{chosen[1]}",
        ["images", "kind", "s", "of bare", "grown MiB"],
        [
            [
                str(row["images"]),
                row["kind"],
                f"{row['seconds']:.1f}",
                f"{row['seconds'] / bare[row['images']]:.2f}x" if row["images"] in bare else "-",
                f"{row['grown_mb']:.0f}",
            ]
            for row in rows
        ],
    )


def main() -> None:
    """Run the command; a wrong request is one line, without a traceback."""
    run_command(convert_speed)


if __name__ == "__main__":
    main()
