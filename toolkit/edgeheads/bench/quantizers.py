"""Which quantizer measures better, task by task: metric, error and time of each one's int8 file.

python -m edgeheads.bench.quantizers --recipes classification-mobilenet_v2_0.35-64 --steps 100
python -m edgeheads.bench.quantizers --runs out/depth,out/keypoints --calibrations mse,min-max
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeheads.bench.latency import IN_TURN, compare
from edgeheads.bench.standalone import run_command
from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.compression.quantize.calibration import get_calibration
from edgeheads.errors import EdgeheadsError, MissingDependencyError
from edgeheads.nativelog import captured_native_log
from edgeheads.progress import Progress, SilentProgress
from edgeheads.recipe import Recipe, list_recipes, load_recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Array, rounded

__all__ = ["Row", "ai_edge_quantized", "compare_quantizers"]

_ROUNDS = 3

# The spread of a drop comes from so many parts of the held-out samples, if each has at least ...
_PARTS = 8
_LEAST_IN_PART = 4
# Of the SQNR.
_COMPARED = 64


@dataclass(frozen=True)
class Row:
    """One int8 file.

    Attributes:
        model: the recipe's name, or the run's folder's.
        quantizer: who made it: "edgeheads METHOD", "plain converter" or "ai-edge-quantizer".
        metric: what the drop is of.
        reference: the float32 file's.
        samples: held out, and scored.
        drop: by how much the file's is worse; in the metric's unit or share.
        spread: the standard error of the drop, from eight disjoint parts of the samples; None:
            too few samples.
        sqnr_db: of the worst output against the float32 file, on held-out samples.
        p50_ms: the median over the rounds; None where nothing was timed.
        ratio: its time over the plain converter's file's, of the same round, the median.
        size_bytes: of the file.
        refused: why there is no file; the figures are None then.
    """

    model: str
    quantizer: str
    metric: str
    reference: float
    samples: int
    drop: float | None = None
    spread: float | None = None
    sqnr_db: float | None = None
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
    inputs = [{"image": one} for one in images]
    # It prints what it does, and draws bars of its own.
    with captured_native_log(), redirect_stdout(io.StringIO()):
        made = quantizer.Quantizer(float_model, recipe.static_wi8_ai8())
        ranges = made.calibrate({"serving_default": inputs}, num_threads=1)
        content = made.quantize(ranges).quantized_model
    if content is None:
        raise EdgeheadsError("ai-edge-quantizer made no file of this graph")
    return bytes(content)


def compare_quantizers(
    recipe: Recipe,
    *,
    run: Path | None = None,
    images: int = 128,
    held_out: int = 512,
    calibrations: Sequence[str] = ("mse",),
    timed: bool = True,
    progress: Progress | None = None,
) -> list[Row]:
    """Quantize a model with each quantizer and the same images.

    Args:
        recipe: the model's.
        run: the folder of a trained one, with model.keras; None: the recipe's is trained.
        images: calibration images, of the training split.
        held_out: samples of the test split that the metric is measured on, at most. Nothing is
            trained or chosen here, so nothing is learned from them.
        calibrations: how our ranges are measured; names from CALIBRATIONS, a file each.
        timed: time the files, too, in turn.
        progress: where to report.

    Raises:
        EdgeheadsError: anything in the recipe, its data or the model that cannot work.
    """
    from edgeheads.compression.quantize.inputs import inputs_of_samples
    from edgeheads.edge_model import load
    from edgeheads.export.tflite import convert_to_float_tflite
    from edgeheads.tasks import get_task
    from edgeheads.train import model_path, read_training_data, set_up_backend, train

    progress = progress or SilentProgress()
    set_up_backend(recipe.seed)
    task = get_task(recipe.task, recipe.head.options)
    data = read_training_data(recipe, task, progress)
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as name, DeviceSession() as session:
        if run is None:
            edge = train(recipe, task, data, Path(name), progress)
        else:
            edge = load(model_path(run), recipe, task, data.names)
        chosen = data.samples[:images]
        inputs = list(inputs_of_samples(edge.scaling, chosen, data.names).images())
        files, refused = _files(_makers(edge, inputs, calibrations), Path(name))
        with progress.step("Scoring", len(files)) as step:
            samples = _test_samples(recipe, task, held_out)
            scorer = _Scorer.of(
                edge,
                task,
                samples,
                session,
                convert_to_float_tflite(edge.model.inputs[0], edge.outputs),
            )
            known = Row(
                recipe.name if run is None else run.name,
                "",
                scorer.whole.metric.title,
                scorer.references[0],
                len(samples),
            )
            rows = {}
            for maker, path in files.items():
                rows[maker] = scorer.scored(replace(known, quantizer=maker), path.read_bytes())
                step.advance()
        if timed:
            rows = _with_times(rows, files, session)
    return [
        *rows.values(),
        *(replace(known, quantizer=maker, refused=why) for maker, why in refused.items()),
    ]


def _with_times(
    rows: Mapping[str, Row], files: Mapping[str, Path], session: DeviceSession
) -> dict[str, Row]:
    times = compare(session, files, IN_TURN, _ROUNDS)
    return {
        maker: replace(
            row,
            p50_ms=times[maker]["latency_ms"]["p50"],
            ratio=times[maker]["ratio_to_first"],
        )
        for maker, row in rows.items()
    }


def _test_samples(recipe: Recipe, task: Any, count: int) -> list[Any]:
    """Return up to `count` samples of the test split, of the network's size."""
    from edgeheads.data.reading import Skipped, read_samples
    from edgeheads.data.resize import resize_sample
    from edgeheads.data.sources import open_source

    data = {**recipe.values()["data"], "test_samples": count}
    source = open_source(data, "test", size=recipe.input_size, seed=recipe.seed)
    read = read_samples(source, task.check, Skipped(), strict=recipe.data.strict)
    return [resize_sample(one, recipe.input_size) for one in islice(read, count)]


@dataclass(frozen=True)
class _Scorer:
    """Scores files on all samples and on parts of them; each file computes them once."""

    whole: Any
    exact: Mapping[str, Array]
    references: tuple[float, ...]

    @classmethod
    def of(
        cls, edge: Any, task: Any, samples: list[Any], session: DeviceSession, float_model: bytes
    ) -> _Scorer:
        from edgeheads.compression.sensitivity.held_out import HeldOut

        whole = HeldOut(edge, task, samples, session)
        exact = whole.outputs_of(float_model)
        return cls(whole, exact, tuple(_part_values(whole, exact)))

    def scored(self, row: Row, content: bytes) -> Row:
        from edgeheads.compression.sensitivity.errors import sqnr

        metric = self.whole.metric
        found = self.whole.outputs_of(content)
        value, *parts = _part_values(self.whole, found)
        drops = [
            metric.drop(exact, part) for exact, part in zip(self.references[1:], parts, strict=True)
        ]
        return replace(
            row,
            drop=metric.drop(self.references[0], value),
            spread=float(np.std(drops, ddof=1)) / math.sqrt(_PARTS) if drops else None,
            sqnr_db=min(
                sqnr(array[:_COMPARED], found[name][:_COMPARED])
                for name, array in self.exact.items()
            ),
            size_bytes=len(content),
        )


def _part_values(held_out: Any, outputs: Mapping[str, Array]) -> list[float]:
    """Return the metric of all samples, then of each part where there are enough."""
    samples = held_out.samples
    predictions = held_out.task.decode_each(outputs, held_out.edge.decoding)
    enough = len(samples) >= _PARTS * _LEAST_IN_PART
    parts = [slice(first, None, _PARTS) for first in range(_PARTS)] if enough else []
    return [held_out.metric_of(predictions[rows], samples[rows]) for rows in (slice(None), *parts)]


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
@click.option("--recipes", help="To train, separated by commas [default: all that ship].")
@click.option("--runs", help="Folders of trained models instead, separated by commas.")
@click.option("--data", metavar="DIR", help="Labelled images instead of the recipe's own.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, help="Training.")
@click.option("--images", type=click.IntRange(2), default=128, show_default=True, help="Calibrate.")
@click.option(
    "--held-out",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Test samples of the metric, at most.",
)
@click.option("--calibrations", default="mse", show_default=True, help="Separated by commas.")
@click.option("--time/--no-time", "timed", default=True, help="Time the files, too.")
@json_option
def quantizers(
    recipes: str | None,
    runs: str | None,
    data: str | None,
    steps: int,
    images: int,
    held_out: int,
    calibrations: str,
    timed: bool,
    as_json: bool,
) -> None:
    """Compare our int8 files with those of the plain converter and of ai-edge-quantizer."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    methods = calibrations.split(",")
    for method in methods:
        get_calibration(method)
    changes = {"data.source": data} if data else {}
    rows = []
    with terminal_progress(silent=as_json) as progress:
        for run, recipe in _models(recipes, runs, steps):
            rows += compare_quantizers(
                recipe.with_values(**changes),
                run=run,
                images=images,
                held_out=held_out,
                calibrations=methods,
                timed=timed,
                progress=progress,
            )
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    trained = "" if runs else f", trained for {steps} steps"
    _print_rows(f"int8 files, calibrated with {images} images{trained}", rows)


def _models(recipes: str | None, runs: str | None, steps: int) -> list[tuple[Path | None, Recipe]]:
    """Return the runs that were given, or the recipes to train."""
    if runs and recipes:
        raise EdgeheadsError("--runs are trained models, --recipes are trained here; give one")
    if runs:
        folders = [Path(name) for name in runs.split(",")]
        return [(folder, load_recipe(folder / "recipe.yaml")) for folder in folders]
    return [
        (None, load_recipe(name).with_values(**{"training.steps": steps}))
        for name in (recipes.split(",") if recipes else list_recipes())
    ]


def _print_rows(title: str, rows: Sequence[Row]) -> None:
    columns = ["model", "quantizer", "metric", "float32", "of"]
    figures = ["drop", "SQNR dB", "p50 ms", "of plain", "kB"]
    print_table(title, [*columns, *figures], [_cells(row) for row in rows])
    for row in rows:
        if row.refused:
            click.echo(f"{row.quantizer} of {row.model}: {row.refused}")


def _cells(row: Row) -> list[str]:
    known = [row.model, row.quantizer, row.metric, f"{row.reference:.4f}", str(row.samples)]
    if row.drop is None or row.size_bytes is None or row.sqnr_db is None:
        return [*known, "refused", *["-"] * 4]
    spread = "" if row.spread is None else f" ± {row.spread:.4f}"
    return [
        *known,
        f"{rounded(row.drop, 4):+.4f}{spread}",
        f"{row.sqnr_db:.1f}",
        "-" if row.p50_ms is None else f"{row.p50_ms:.3f}",
        "-" if row.ratio is None else f"{row.ratio:.2f}x",
        f"{row.size_bytes / 1000:.0f}",
    ]


def main() -> None:
    """Run the command; a wrong request is one line, without a traceback."""
    run_command(quantizers)


if __name__ == "__main__":
    main()
