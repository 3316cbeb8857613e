"""`edgeheads quantize`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import counted, print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import (
    load_pipeline,
    model_in,
    recipe_beside,
    resolve_recipe,
)
from edgeheads.compression.quantize.calibration import DEFAULT_CALIBRATION
from edgeheads.errors import CheckFailedError, EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.compression.quantize.doctor import DoctorReport
    from edgeheads.compression.quantize.run import QuantizeResult
    from edgeheads.recipe import Recipe

_PURPOSE = "quantizing a model"

_POOR_DB = 10


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR|FILE.npz",
    help="Calibration images; with a recipe, instead of its own, labelled.",
)
@click.option("--recipe", "recipe_name", metavar="NAME|FILE", help="What the model was made by.")
@click.option("--scheme", default="int8", show_default=True, help="int8, int16x8, dynamic, ...")
@click.option(
    "--calibration",
    metavar="NAME",
    help=f"mse, min-max, percentile or moving-average  [default: the recipe's, or "
    f"{DEFAULT_CALIBRATION}]",
)
@click.option("--per-tensor", is_flag=True, help="One scale for all channels of a kernel.")
@click.option("--scaling", metavar="NAME", help="Of pictures: pixels, unit, signed or imagenet.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Calibration images, at most.",
)
@click.option("--doctor", is_flag=True, help="Only say what is wrong with the calibration images.")
@click.option("--compare", is_flag=True, help="Make the plain converter's int8 file, too.")
@click.option("--metric", "with_metric", is_flag=True, help="Score the files; needs a recipe.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.tflite",
    help="[default: MODEL.SCHEME.tflite]",
)
@json_option
def quantize(
    model: Path,
    data: str | None,
    recipe_name: str | None,
    scheme: str,
    calibration: str | None,
    per_tensor: bool,
    scaling: str | None,
    samples: int,
    doctor: bool,
    compare: bool,
    with_metric: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Turn MODEL, a .keras, .h5 or float .tflite file or a run's folder, into a quantized one.

    First the calibration images are looked at: too few, repeated, of one colour, with NaN,
    normalised otherwise than the model was trained with, classes without an image, or ranges that
    differ between two halves of them.

    A recipe.yaml beside the model, or --recipe, says what the model was trained on: that is
    calibrated with, and --metric scores on samples held out of it. Without one, give pictures or
    arrays with --data.
    """
    file = model_in(model)
    recipe = _recipe(file, recipe_name, data)
    if with_metric and recipe is None:
        raise EdgeheadsError("--metric needs labels, which a recipe names: add --recipe")
    if scaling is not None and recipe is not None:
        raise EdgeheadsError(f"--scaling {scaling} is for a model without a recipe; leave it out")
    with terminal_progress(silent=as_json) as progress:
        with progress.step("Starting TensorFlow"):
            run = load_pipeline("compression.quantize.run:quantize_file", _PURPOSE)
            options = load_pipeline("compression.quantize.run:QuantizeOptions", _PURPOSE)
        result = run(
            file,
            out or file.with_name(f"{file.stem}.{scheme}.tflite"),
            options(
                scheme,
                calibration or (recipe.export.calibration if recipe else DEFAULT_CALIBRATION),
                per_channel=not per_tensor,
                samples=samples,
                scaling=scaling,
                compare=compare,
                only_diagnose=doctor,
            ),
            data=Path(data) if data and recipe is None else None,
            recipe=recipe,
            with_metric=with_metric and not doctor,
            progress=progress,
        )
    if as_json:
        print_json(result.as_json())
    else:
        _print(result)
    if doctor and result.doctor.errors:
        raise CheckFailedError(
            f"{counted(len(result.doctor.errors), 'error')} in the calibration images; no file can "
            "be made"
        )


def _recipe(file: Path, recipe_name: str | None, data: str | None) -> Recipe | None:
    if file.suffix == ".tflite" and recipe_name is None:
        return None
    beside = recipe_beside(file)
    if recipe_name is None and beside is None:
        return None
    return resolve_recipe("quantize", None, recipe_name, beside, {"data": data})


def _print(result: QuantizeResult) -> None:
    if result.doctor is not None:
        _print_findings(result.doctor)
    if result.path is None:
        return
    metric = result.metric
    columns = ["file", "kB", "SQNR dB", *([f"{metric.title} drop"] if metric else [])]
    rows: list[list[Any]] = []
    for name, one in result.files.items():
        ratio = one.sqnr_db
        shown = "-" if ratio is None else "exact" if math.isinf(ratio) else f"{ratio:.1f}"
        row = [name, f"{one.size_bytes / 1000:.1f}", shown]
        if metric is not None:
            row.append("-" if one.drop is None else metric.format(one.drop))
        rows.append(row)
    print_table("Files", columns, rows)
    if result.compared:
        click.echo(
            "SQNR: of the worst output against float32, on "
            f"{counted(result.compared, 'calibration image')}."
        )
    if any(one.sqnr_db is not None and one.sqnr_db < _POOR_DB for one in result.files.values()):
        click.echo(
            f"Below {_POOR_DB} dB an output is mostly noise: see where it comes from with "
            "edgeheads sensitivity, or try --scheme int16x8 or float16."
        )
    if metric is not None:
        click.echo(
            f"{metric.title} of the Keras model: {result.reference:.4f}, on "
            f"{counted(result.held_out, 'sample')} held out of training."
        )
    click.echo(f"Wrote {result.path}")


def _print_findings(report: DoctorReport) -> None:
    click.echo(f"Calibration: {counted(report.images, 'image')}")
    for one in report.findings:
        advice = f"; {one.advice}" if one.advice else ""
        click.echo(f"  {one.severity:<8} {one.check}: {one.text}{advice}")
