"""`edgeheads convert`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeheads.cli.console import print_json, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option
from edgeheads.cli.recipe_options import (
    load_pipeline,
    print_recipe,
    recipe_beside,
    recipe_options,
    resolve_recipe,
    run_name,
)
from edgeheads.compression.quantize.schemes import SCHEMES
from edgeheads.errors import CheckFailedError, EdgeheadsError

# Of a metric in points: half of what most tasks allow an int8 file to lose.
_MAX_DROP = 0.5

_AWARE_STEPS = 200


@click.command()
@recipe_options
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(list(SCHEMES)),
    help="Of the file; may be given several times [default: the recipe's].",
)
@click.option(
    "--model",
    "model_file",
    type=click.Path(path_type=Path),
    help="Trained .keras model: convert it instead of building and training one.",
)
@click.option(
    "--prune",
    "prune_target",
    metavar="KIND=AMOUNT",
    help="Remove channels first: macs=0.5, latency=0.6, ... [default: the recipe's].",
)
@click.option(
    "--fast-for",
    type=click.Choice(["device", "any", "xnnpack", "xnnpack-amx"]),
    help="Change the int8 file's graph for these kernels, or for those of --device; outputs stay "
    "the same [default: the recipe's].",
)
@click.option(
    "--mixed",
    is_flag=True,
    help="Keep the fewest layers of the int8 file float that --max-drop asks for.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    help="Of --mixed: points, percent or units by which the task's metric (top-1, mAP, mIoU, "
    "AbsRel, ...) may be worse on samples held out of training "
    "[default: 0.5].",
)
@click.option(
    "--quantize-aware",
    is_flag=True,
    help="Fine-tune with the rounding of int8 before converting to it.",
)
@click.option(
    "--quantize-aware-steps",
    type=click.IntRange(1),
    help="Of --quantize-aware [default: the recipe's, or 200].",
)
@click.option(
    "--against-separate",
    is_flag=True,
    help="Of several tasks: also convert each by itself, and compare.",
)
@device_options
@json_option
def convert(
    task: str | None,
    recipe_name: str | None,
    model_file: Path | None,
    prune_target: str | None,
    mixed: bool,
    max_drop: float | None,
    quantize_aware: bool,
    quantize_aware_steps: int | None,
    against_separate: bool,
    out: Path | None,
    dry_run: bool,
    device: str | None,
    threads: int | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train a model and turn it into proved .tflite Bundles.

    Without --data the training images are rendered, with exact labels; without --recipe the
    task's own is taken, or, with --model, the recipe.yaml beside the model.
    """
    profile = chosen_device(device, threads)
    if max_drop is not None and not mixed:
        raise EdgeheadsError("--max-drop is the budget of mixed precision: add --mixed")
    overrides["prune"] = prune_target
    overrides["max_drop"] = (_MAX_DROP if max_drop is None else max_drop) if mixed else None
    overrides["quantize_aware_steps"] = quantize_aware_steps
    if overrides["fast_for"] == "device":
        from edgeheads.export.fast_int8 import fast_for

        # The recipe names the kernels: it gives the same file on any machine.
        overrides["fast_for"] = fast_for(profile)
    beside = recipe_beside(model_file) if model_file else None
    recipe = resolve_recipe("convert", task, recipe_name, beside, overrides)
    if quantize_aware and not recipe.quantize_aware.steps:
        recipe = recipe.with_values(**{"quantize_aware.steps": _AWARE_STEPS})
    if dry_run:
        print_recipe(recipe)
        return
    separate = None
    with terminal_progress(silent=as_json) as progress:
        with progress.step("Starting TensorFlow"):
            run = load_pipeline("convert:convert", "converting a model")
            compare = load_pipeline("separate:compare_with_separate", "converting a model")
            alone = load_pipeline("separate:separate_recipes", "converting a model")
        if against_separate:
            alone(recipe)  # fail now, not after training
        result = run(
            recipe,
            out or Path("out", run_name(recipe)),
            model_file=model_file,
            prune_given=prune_target is not None,
            profile=profile,
            progress=progress,
        )
        if against_separate:
            separate = compare(result, profile=profile, progress=progress)
    from edgeheads.cli import convert_report as report

    if as_json:
        print_json(report.as_json(result, separate))
    else:
        report.print_result(result)
        if separate:
            report.print_separate(separate)
    failures = report.failures(result)
    if failures:
        raise CheckFailedError("; ".join(failures))
