"""Options of the commands that build a model from a recipe, and the recipe they resolve to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.options import parse_size
from edgeheads.errors import EdgeheadsError, MissingDependencyError

if TYPE_CHECKING:
    from edgeheads.recipe import Recipe

__all__ = [
    "load_pipeline",
    "model_in",
    "print_recipe",
    "recipe_beside",
    "recipe_options",
    "resolve_recipe",
    "run_name",
]

_Command = Callable[..., Any]

_SIZE_HELP = "Network input, in pixels: 128, or 192x256 (height x width)."

_OPTIONS = (
    click.option("--task", metavar="TASK", help="What to predict, such as depth."),
    click.option("--recipe", "recipe_name", metavar="NAME|FILE", help="What to build."),
    click.option("--backbone", metavar="NAME", help="Network that computes the features."),
    click.option("--width", type=float, help="Multiplies the backbone's channels."),
    click.option("--input-size", metavar="SIZE", help=_SIZE_HELP),
    click.option("--weights", metavar="FILE|imagenet|none", help="What the backbone starts from."),
    click.option("--data", metavar="DIR", help="Labelled images [default: rendered scenes]."),
    click.option("--format", metavar="NAME", help="Of DIR [default: what it looks like]."),
    click.option(
        "--strict", is_flag=True, default=None, help="Refuse bad samples instead of skipping them."
    ),
    click.option("--steps", type=click.IntRange(1), help="Training steps."),
    click.option(
        "--out", type=click.Path(path_type=Path), help="Folder for the results [default: out/NAME]."
    ),
    click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of scenes, weights and order."),
    click.option("--dry-run", is_flag=True, help="Print the resolved recipe and stop."),
)

# option -> the recipe's field that it overrides.
_FIELDS = {
    "precisions": "export.precisions",
    "backbone": "backbone.name",
    "width": "backbone.width",
    "input_size": "input_size",
    "weights": "backbone.weights",
    "data": "data.source",
    "format": "data.format",
    "strict": "data.strict",
    "steps": "training.steps",
    "seed": "seed",
    "prune": "prune.target",
    "max_drop": "export.max_drop",
    "fast_for": "export.fast_for",
    "quantize_aware_steps": "quantize_aware.steps",
}


def recipe_options(command: _Command) -> _Command:
    """Add the options that say what to build, and --out and --dry-run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def resolve_recipe(
    command: str,
    task: str | None,
    recipe_name: str | None,
    fallback: Path | None,
    overrides: Mapping[str, Any],
) -> Recipe:
    """Return the recipe that the options stand for.

    Args:
        command: its name, for messages.
        task: picks the task's own recipe where no other is named.
        recipe_name: a name or a file.
        fallback: a recipe to take before the task's own.
        overrides: {option: value}; None, or no value at all, leaves the recipe's.

    Raises:
        EdgeheadsError: nothing says what to build, or two options contradict each other.
    """
    from edgeheads.recipe import load_recipe
    from edgeheads.tasks import get_task

    if recipe_name is None and fallback is not None:
        recipe_name = str(fallback)
    if recipe_name is None:
        if task is None:
            raise EdgeheadsError(
                "say what to build: --task depth, or --recipe NAME; "
                f"see: edgeheads {command} --help"
            )
        recipe_name = get_task(task).default_recipe
    recipe = load_recipe(recipe_name)
    # A recipe may call its task by a synonym; from here on it has one name.
    changes: dict[str, Any] = {"task": get_task(recipe.task).type.value}
    if task is not None and get_task(task).type.value != changes["task"]:
        raise EdgeheadsError(f"--task {task} contradicts {recipe_name}, which is for {recipe.task}")
    for option, field in _FIELDS.items():
        value = overrides.get(option)
        if value is None or value == ():
            continue
        if option == "input_size":
            value = list(parse_size(value))
        changes[field] = None if option == "weights" and value == "none" else value
    return recipe.with_values(**changes)


def model_in(path: Path) -> Path:
    """Return the model of a run's folder, or the file itself."""
    return path / "model.keras" if path.is_dir() else path


def recipe_beside(model: Path) -> Path | None:
    """Return the recipe that lies beside a model, if one does."""
    path = model.parent / "recipe.yaml"
    return path if path.is_file() else None


def print_recipe(recipe: Recipe) -> None:
    """Print a recipe with every field, as YAML."""
    from edgeheads.recipe import recipe_to_yaml

    click.echo(recipe_to_yaml(recipe), nl=False)


def run_name(recipe: Recipe) -> str:
    """Return the name of a run's default folder."""
    height, width = recipe.input_size
    size = f"{height}" if height == width else f"{height}x{width}"
    name = f"{recipe.task}-{recipe.backbone.name}_{recipe.backbone.width:g}-{size}"
    source = recipe.data.source
    return name if source == "synthetic" else f"{name}-{Path(source).resolve().name}"


def load_pipeline(function: str, purpose: str) -> Callable[..., Any]:
    """Import TensorFlow and what needs it, without the banner it greets with.

    Args:
        function: "module:function" of edgeheads.
        purpose: for the message where something is not installed.
    """
    from edgeheads.nativelog import captured_native_log

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    module, _, name = function.partition(":")
    try:
        with captured_native_log():
            return getattr(import_module(f"edgeheads.{module}"), name)
    except ImportError as error:
        raise MissingDependencyError(error.name or str(error), "convert", purpose) from None
