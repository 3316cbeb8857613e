"""`edgeheads prune`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import print_json, terminal_progress
from edgeheads.cli.options import chosen_device, device_options, json_option
from edgeheads.cli.recipe_options import (
    load_pipeline,
    model_in,
    print_recipe,
    recipe_beside,
    recipe_options,
    resolve_recipe,
)
from edgeheads.errors import EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.recipe import Recipe

_PURPOSE = "pruning a model"

# option -> field of the recipe's section `prune`.
_SECTION = (
    "target",
    "importance",
    "normalization",
    "scope",
    "multiple",
    "min_fraction",
    "precision",
    "gradient_batches",
    "rounds",
    "recover_steps",
    "recover_rate",
    "distill",
    "sparsity",
    "pattern",
)

# Options of a recipe that a model without one takes, too.
_ALONE = ("data", "seed")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", metavar="KIND=AMOUNT", help="macs=0.5, size=300kB, latency=0.6, ...")
@click.option("--importance", metavar="NAME", help="taylor, bn_scale, l1 or l2.")
@click.option("--normalization", metavar="NAME", help="Of each group: mean, max, l2 or none.")
@click.option("--scope", metavar="NAME", help="global, or layer: the same share everywhere.")
@click.option("--multiple", type=int, help="Keep channels in multiples of this.")
@click.option("--min-fraction", type=float, help="Of each group's channels to keep.")
@click.option("--precision", metavar="NAME", help="Of the file that size and latency are of.")
@click.option("--gradient-batches", type=int, help="Training batches for taylor.")
@click.option("--rounds", type=int, help="Prune and recover so many times.")
@click.option("--recover-steps", type=int, help="Training steps after each round.")
@click.option("--recover-rate", type=float, help="Learning rate, as a share of the recipe's.")
@click.option("--distill", type=float, help="Weight of the unpruned model as a teacher; 0: none.")
@click.option("--sparsity", type=float, help="Share of zeros to train towards.")
@click.option("--pattern", metavar="NAME", help="Of zeros: unstructured, 2:4, 4x1, ...")
@recipe_options
@device_options
@json_option
def prune(
    model: Path,
    task: str | None,
    recipe_name: str | None,
    out: Path | None,
    dry_run: bool,
    device: str | None,
    threads: int | None,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Remove channels of MODEL, a .keras or .h5 file or a run's folder, and let it recover.

    The recipe.yaml beside the model says what its task is, and what to recover and be scored on.
    Without one, and without --task or --recipe, the model is pruned as it is; with --data
    FILE.npz, which holds x [N, H, W, C] and y, it recovers and is scored on that.
    """
    profile = chosen_device(device, threads)
    file = model_in(model)
    folder = out or file.parent / "pruned"
    section = {name: overrides.pop(name) for name in _SECTION}
    section = {name: value for name, value in section.items() if value is not None}
    if overrides["steps"] is not None:
        raise EdgeheadsError(
            f"--steps {overrides['steps']} is of the training, which is over; say --recover-steps"
        )
    recipe = _recipe(file, task, recipe_name, overrides, section)
    if recipe is None:
        _require_alone(overrides)
    if dry_run:
        _print_plan(recipe, section)
        return
    with terminal_progress(silent=as_json) as progress:
        with progress.step("Starting TensorFlow"):
            with_recipe = load_pipeline("compression.prune.run:prune_with_recipe", _PURPOSE)
            alone = load_pipeline("compression.prune.alone:prune_alone", _PURPOSE)
        if recipe is not None:
            result = with_recipe(file, recipe, folder, profile=profile, progress=progress)
        else:
            result = alone(
                file,
                folder,
                section,
                data=overrides["data"],
                seed=overrides["seed"] or 0,
                profile=profile,
                progress=progress,
            )
    from edgeheads.cli import prune_report

    if as_json:
        print_json({"model": str(result.model_path), **result.report.as_json()})
        return
    prune_report.print_report(result.report, recipe)
    click.echo(f"{result.folder}: {' '.join(sorted(one.name for one in result.folder.iterdir()))}")
    if recipe is not None:
        source = recipe.data.source
        data = "" if source == "synthetic" else f" --data {shlex.quote(source)}"
        click.echo(f"Next: edgeheads convert --model {shlex.quote(str(result.model_path))}{data}")


def _recipe(
    file: Path,
    task: str | None,
    recipe_name: str | None,
    overrides: dict[str, Any],
    section: dict[str, Any],
) -> Recipe | None:
    beside = recipe_beside(file)
    if task is None and recipe_name is None and beside is None:
        return None
    if file.suffix != ".keras":
        raise EdgeheadsError(
            f"a model with a recipe must be a .keras file, received {file}; leave --task and "
            "--recipe out to prune it as it is"
        )
    recipe = resolve_recipe("prune", task, recipe_name, beside, overrides)
    return recipe.with_values(**{f"prune.{name}": value for name, value in section.items()})


def _require_alone(overrides: dict[str, Any]) -> None:
    """Raise EdgeheadsError where options are given that change a recipe, and there is none."""
    given = [name for name, value in overrides.items() if value is not None]
    options = [f"--{name.replace('_', '-')}" for name in given if name not in _ALONE]
    if options:
        raise EdgeheadsError(
            f"{', '.join(options)} would change a recipe, and the model has none beside it; name "
            "one with --recipe or --task, or leave the option out"
        )


def _print_plan(recipe: Recipe | None, section: dict[str, Any]) -> None:
    from edgeheads.recipe import PruneSection

    if recipe is not None:
        print_recipe(recipe)
    else:
        print_json(PruneSection.of(section).model_dump(mode="json"))
