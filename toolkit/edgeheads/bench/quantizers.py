"""Which quantizer measures better, task by task: the metric, and the time, of each one's int8 file.

python -m edgeheads.bench.quantizers --recipes classification-mobilenet_v2_0.35-64 --steps 100
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgeheads.bench.latency import compare
from edgeheads.bench.standalone import run_command
from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.errors import EdgeheadsError, MissingDependencyError
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe, list_recipes, load_recipe
from edgeheads.runtime import BenchSettings, DeviceSession
from edgeheads.tasks.base import Array

__all__ = ["Row", "ai_edge_quantized", "compare_quantizers"]

_SETTINGS = BenchSettings(
    warmup_runs=5, min_warmup_seconds=0.2, runs=40, max_seconds=5.0, sample_seconds=0.0
)
_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One int8 file.

    Attributes:
        recipe: of the model.
        quantizer: who made it: "edgeheads METHOD", "plain converter" or "ai-edge-quantizer".
        metric: what the drop is of.
        reference: the Keras model's.
        drop: by how much the file's is worse, on held-out samples; in the metric's unit or share.
        p50_ms: the median over the rounds.
        ratio: its time over the plain converter's file's, of the same round, the median.
        size_bytes: of the file.
        refused: why there is no file; the figures are None then.
    """

    recipe: str
    quantizer: str
    metric: str
    reference: float
    drop: float | None = None
    p50_ms: float | None = None
    ratio: float | None = None
    size_bytes: int | None = None
    refused: str = ""


def ai_edge_quantized(float_model: bytes, images: Sequence[Array]) -> bytes:
    """Return the int8 file that ai-edge-quantizer makes of a float32 .tflite file.

    Args:
        float_model: the file, with one signature of one input, as `convert_to_float_tflite` makes.
        images: calibration inputs [1, H, W, C].

    Raises:
        MissingDependencyError: ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError:
        raise MissingDependencyError(
            "ai-edge-quantizer", "quantizers", "comparing quantizers"
        ) from None
    made = quantizer.Quantizer(float_model, recipe.static_wi8_ai8())
    ranges = made.calibrate({"serving_default": [{"image": one} for one in images]}, num_threads=1)
    content = made.quantize(ranges).quantized_model
    if content is None:
        raise EdgeheadsError("ai-edge-quantizer made no file of this graph")
    return bytes(content)


def compare_quantizers(
    recipe: Recipe,
    *,
    images: int = 64,
    held_out: int = 128,
    calibrations: Sequence[str] = ("mse",),
    progress: Progress | None = None,
) -> list[Row]:
    """Train a recipe's model, and quantize it with each quantizer and the same images.

    Args:
        recipe: what is trained; its data must be rendered, or hold samples back for validation.
        images: calibration images.
        held_out: samples of the metric, at most.
        calibrations: how our ranges are measured; names from CALIBRATIONS, a file each.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in the recipe or its data that cannot work.
    """
    from edgeheads.compression.sensitivity.held_out import HeldOut, held_out_samples
    from edgeheads.tasks import get_task
    from edgeheads.train import read_training_data, set_up_backend, train

    progress = progress or SilentProgress()
    set_up_backend(recipe.seed)
    task = get_task(recipe.task, recipe.head.options)
    data = read_training_data(recipe, task, progress)
    samples = held_out_samples(recipe, task, data.samples, held_out)
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as name, DeviceSession() as session:
        edge = train(recipe, task, data, Path(name), progress)
        inputs = [edge.scaled([one.image]) for one in data.samples[:images]]
        scorer = HeldOut(edge, task, samples, session)
        files, refused = _files(_makers(edge, inputs, calibrations), Path(name))
        times = compare(session, files, _SETTINGS, _ROUNDS)
        known = recipe.name, scorer.metric.title, scorer.reference
        rows = [
            Row(
                known[0],
                maker,
                *known[1:],
                scorer.drop_of(path.read_bytes()),
                times[maker]["latency_ms"]["p50"],
                times[maker]["ratio_to_first"],
                path.stat().st_size,
            )
            for maker, path in files.items()
        ]
    rows += [Row(known[0], maker, *known[1:], refused=why) for maker, why in refused.items()]
    return rows


def _makers(
    edge: Any, inputs: Sequence[Array], calibrations: Sequence[str]
) -> dict[str, Callable[[], bytes]]:
    from edgeheads.export.tflite import (
        convert_plainly,
        convert_to_float_tflite,
        convert_to_tflite,
    )

    graph = edge.model.inputs[0], edge.outputs

    def ours(method: str) -> Callable[[], bytes]:
        return lambda: convert_to_tflite(*graph, "int8", lambda: inputs, calibration=method)

    return {
        "plain converter": lambda: convert_plainly(*graph, lambda: inputs),
        "ai-edge-quantizer": lambda: ai_edge_quantized(convert_to_float_tflite(*graph), inputs),
        **{f"edgeheads {method}": ours(method) for method in calibrations},
    }


def _files(
    makers: Mapping[str, Callable[[], bytes]], folder: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files that could be made, the plain converter's first, and why others are not."""
    files, refused = {}, {}
    for number, (name, make) in enumerate(makers.items()):
        try:
            content = make()
        except MissingDependencyError:
            raise
        except Exception as error:  # each quantizer has its own kinds
            refused[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            continue
        files[name] = folder / f"{number}.tflite"
        files[name].write_bytes(content)
    if "plain converter" in refused:
        raise EdgeheadsError(f"the plain converter failed: {refused['plain converter']}")
    return files, refused


@click.command()
@click.option("--recipes", help="Separated by commas [default: all that ship].")
@click.option("--data", metavar="DIR", help="Labelled images instead of the recipe's own.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Training.")
@click.option("--images", type=click.IntRange(2), default=64, show_default=True, help="Calibrate.")
@click.option("--calibrations", default="mse", show_default=True, help="Separated by commas.")
@json_option
def quantizers(
    recipes: str | None,
    data: str | None,
    steps: int,
    images: int,
    calibrations: str,
    as_json: bool,
) -> None:
    """Compare our int8 files with those of the plain converter and of ai-edge-quantizer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    rows = []
    with terminal_progress(silent=as_json) as progress:
        for name in recipes.split(",") if recipes else list_recipes():
            changes: dict[str, Any] = {"training.steps": steps}
            if data:
                changes |= {"data.source": data, "training.validation_fraction": 0.1}
            recipe = load_recipe(name).with_values(**changes)
            rows += compare_quantizers(
                recipe, images=images, calibrations=calibrations.split(","), progress=progress
            )
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        f"int8 files, trained for {steps} steps, calibrated with {images} images",
        ["recipe", "quantizer", "metric", "Keras", "drop", "p50 ms", "of plain", "kB"],
        [
            [row.recipe, row.quantizer, row.metric, f"{row.reference:.4f}", *_figures(row)]
            for row in rows
        ],
    )
    for row in rows:
        if row.refused:
            click.echo(f"{row.quantizer} of {row.recipe}: {row.refused}")


def _figures(row: Row) -> list[str]:
    if row.drop is None or row.size_bytes is None:
        return ["refused", "-", "-", "-"]
    return [
        f"{row.drop:+.4f}",
        f"{row.p50_ms:.3f}",
        f"{row.ratio:.2f}x",
        f"{row.size_bytes / 1000:.0f}",
    ]


def main() -> None:
    """Run the command; a wrong request is one line, without a traceback."""
    run_command(quantizers)


if __name__ == "__main__":
    main()
