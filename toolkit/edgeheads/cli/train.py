"""`edgeheads train`: a trained Keras model, with logs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import print_json, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import (
    load_pipeline,
    print_recipe,
    recipe_options,
    resolve_recipe,
    run_name,
)

if TYPE_CHECKING:
    from edgeheads.training.run import TrainResult


@click.command()
@recipe_options
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
@click.option(
    "--checkpoint-every",
    "checkpoint_seconds",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to save what a killed run needs to go on.",
)
@click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard, too.")
@click.option(
    "--distribute", is_flag=True, help="Use all local devices, or the workers of TF_CONFIG."
)
@json_option
def train(
    task: str | None,
    recipe_name: str | None,
    out: Path | None,
    dry_run: bool,
    resume: bool,
    checkpoint_seconds: float,
    tensorboard: bool,
    distribute: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Train a model and save it for `edgeheads convert --model`.

    Without --data the training images are rendered, with exact labels; without --recipe the
    task's own is taken, or, with --resume, that of the unfinished training.
    """
    unfinished = _unfinished(out) if resume else None
    recipe = resolve_recipe("train", task, recipe_name, unfinished, overrides)
    if dry_run:
        print_recipe(recipe)
        return
    folder = out or Path("out", run_name(recipe))
    try:
        with terminal_progress(silent=as_json) as progress:
            with progress.step("Starting TensorFlow"):
                run = load_pipeline("training.run:train_and_log", "training a model")
                options = load_pipeline("training.run:RunOptions", "training a model")
            result = run(
                recipe,
                folder,
                options(resume, checkpoint_seconds, tensorboard, distribute),
                progress,
            )
    except KeyboardInterrupt:
        if (folder / "checkpoint" / "state.npz").is_file():
            command = f"edgeheads train --resume --out {shlex.quote(str(folder))}"
            click.echo(f"edgeheads: stopped; go on with: {command}", err=True)
        raise
    if not result.chief:
        return
    if as_json:
        print_json(_as_json(result))
    else:
        from edgeheads.cli.train_report import print_result

        print_result(result)


def _unfinished(out: Path | None) -> Path | None:
    path = out / "checkpoint" / "recipe.yaml" if out else None
    return path if path and path.is_file() else None


def _as_json(result: TrainResult) -> dict[str, Any]:
    history = result.history
    return {
        "folder": str(result.folder),
        "model": str(result.model_path),
        "parameters": result.parameters,
        "recipe": result.recipe.values(),
        "steps": history.step,
        "loss": history.losses[-1],
        "validations": [{"step": one.step, **one.metrics} for one in history.validations],
        "best_validation": history.best,
        "test": result.scores,
        "seconds_per_step": result.seconds_per_step,
        "images_per_second": result.images_per_second,
        "devices": result.devices,
        "seconds": result.seconds,
        "skipped": result.skipped,
    }
