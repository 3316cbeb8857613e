"""`edgeheads convert`: the main job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import print_json, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option, parse_size
from edgeheads.errors import CheckFailedError, EdgeheadsError, MissingDependencyError

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult
    from edgeheads.recipe import Recipe

_SIZE_HELP = "Network input, in pixels: 128, or 192x256 (height x width)."


@click.command()
@click.option("--task", metavar="TASK", help="What to predict: depth.")
@click.option("--recipe", "recipe_name", metavar="NAME|FILE", help="What to build.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["float32", "float16", "int8"]),
    help="Of the file; may be given several times [default: the recipe's].",
)
@click.option("--backbone", metavar="NAME", help="Network that computes the features.")
@click.option("--width", type=float, help="Multiplies the backbone's channels.")
@click.option("--input-size", metavar="SIZE", help=_SIZE_HELP)
@click.option("--weights", metavar="FILE|imagenet|none", help="What the backbone starts from.")
@click.option("--data", metavar="DIR", help="Labelled images [default: rendered scenes].")
@click.option("--steps", type=click.IntRange(1), help="Training steps.")
@click.option(
    "--model",
    "model_file",
    type=click.Path(path_type=Path),
    help="Trained .keras model: convert it instead of building and training one.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results [default: out/NAME]."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of scenes, weights and order.")
@click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop.")
@device_options
@json_option
def convert(
    task: str | None,
    recipe_name: str | None,
    model_file: Path | None,
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
    recipe = _resolve(task, recipe_name, model_file, overrides)
    if dry_run:
        from edgeheads.recipe import recipe_to_yaml

        click.echo(recipe_to_yaml(recipe), nl=False)
        return
    with terminal_progress(silent=as_json) as progress:
        with progress.step("Starting TensorFlow"):
            run = _load_pipeline()
        result = run(
            recipe,
            out or Path("out", _run_name(recipe)),
            model_file=model_file,
            profile=profile,
            progress=progress,
        )
    from edgeheads.cli import convert_report as report

    if as_json:
        print_json(report.as_json(result))
    else:
        report.print_result(result)
    failures = report.failures(result)
    if failures:
        raise CheckFailedError("; ".join(failures))


def _resolve(
    task: str | None, recipe_name: str | None, model_file: Path | None, overrides: dict[str, Any]
) -> Recipe:
    from edgeheads.recipe import load_recipe
    from edgeheads.tasks import get_task

    beside = model_file.parent / "recipe.yaml" if model_file else None
    if recipe_name is None and beside is not None and beside.is_file():
        recipe_name = str(beside)
    if recipe_name is None:
        if task is None:
            raise EdgeheadsError(
                "say what to build: --task depth, or --recipe NAME; see: edgeheads convert --help"
            )
        recipe_name = get_task(task).default_recipe
    recipe = load_recipe(recipe_name)
    # A recipe may call its task by a synonym; from here on it has one name.
    changes: dict[str, Any] = {"task": get_task(recipe.task).type.value}
    if task is not None and get_task(task).type.value != changes["task"]:
        raise EdgeheadsError(f"--task {task} contradicts {recipe_name}, which is for {recipe.task}")
    fields = {
        "precisions": "export.precisions",
        "backbone": "backbone.name",
        "width": "backbone.width",
        "input_size": "input_size",
        "weights": "backbone.weights",
        "data": "data.source",
        "steps": "training.steps",
        "seed": "seed",
    }
    for option, field in fields.items():
        value = overrides[option]
        if value is None or value == ():
            continue
        if option == "input_size":
            value = list(parse_size(value))
        changes[field] = None if option == "weights" and value == "none" else value
    return recipe.with_values(**changes)


def _run_name(recipe: Recipe) -> str:
    height, width = recipe.input_size
    size = f"{height}" if height == width else f"{height}x{width}"
    name = f"{recipe.task}-{recipe.backbone.name}_{recipe.backbone.width:g}-{size}"
    source = recipe.data.source
    return name if source == "synthetic" else f"{name}-{Path(source).resolve().name}"


def _load_pipeline() -> Callable[..., ConvertResult]:
    """Import TensorFlow and what needs it, without the banner it greets with."""
    from edgeheads.nativelog import captured_native_log

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with captured_native_log():
            from edgeheads.convert import convert as run
    except ImportError as error:
        raise MissingDependencyError(
            error.name or str(error), "convert", "converting a model"
        ) from None
    return run
