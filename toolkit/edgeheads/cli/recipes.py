"""`edgeheads recipes`."""

from __future__ import annotations

import click

from edgeheads.cli.console import print_json, print_table
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import print_recipe


@click.group()
def recipes() -> None:
    """List the recipes that ship with edgeheads, or show one."""


@recipes.command("list")
@click.option("--task", metavar="TASK", help="Only those of a task.")
@json_option
def list_(task: str | None, as_json: bool) -> None:
    """List the recipes: task, backbone, input size, training steps, files."""
    from edgeheads.recipe import list_recipes, load_recipe
    from edgeheads.tasks.task_type import TaskType

    chosen = TaskType.parse(task) if task else None
    found = [load_recipe(name) for name in list_recipes()]
    found = [one for one in found if chosen is None or TaskType.parse(one.task) is chosen]
    if as_json:
        print_json([one.values() for one in found])
        return
    print_table(
        f"{len(found)} recipes",
        ["name", "task", "backbone", "input", "head", "steps", "files"],
        [
            [
                one.name,
                one.task,
                f"{one.backbone.name} {one.backbone.width:g}",
                "x".join(map(str, one.input_size)),
                one.head.preset,
                str(one.training.steps),
                " ".join(one.export.precisions),
            ]
            for one in found
        ],
    )
    click.echo("Next: edgeheads recipes show NAME; edgeheads convert --recipe NAME")


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the recipe NAME (or a file) with every field, as YAML."""
    from edgeheads.recipe import load_recipe

    print_recipe(load_recipe(name))
