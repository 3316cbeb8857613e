"""`edgeheads sensitivity`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import counted, print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import (
    load_pipeline,
    model_in,
    print_recipe,
    recipe_beside,
    recipe_options,
    resolve_recipe,
)
from edgeheads.errors import EdgeheadsError
from edgeheads.tasks.base import rounded

if TYPE_CHECKING:
    from edgeheads.compression.sensitivity.run import SensitivityResult


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(2), default=32, help="Images to measure with.")
@click.option("--metric", "with_metric", is_flag=True, help="Score each layer's file, too.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    help="Also write mixed.tflite, at most so many points, percent or units worse than float.",
)
@click.option("--per-tensor", is_flag=True, help="One scale for all channels of a kernel.")
@recipe_options
@json_option
def sensitivity(
    model: Path,
    samples: int,
    with_metric: bool,
    max_drop: float | None,
    per_tensor: bool,
    task: str | None,
    recipe_name: str | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **overrides: Any,
) -> None:
    """Show what int8 costs each layer of MODEL, a .keras file or a run's folder.

    With --out, sensitivity.json and sensitivity.png are written there, and mixed.tflite where
    --max-drop asks for one.
    """
    file = model_in(model)
    recipe = resolve_recipe("sensitivity", task, recipe_name, recipe_beside(file), overrides)
    if dry_run:
        print_recipe(recipe)
        return
    if max_drop is not None and out is None:
        raise EdgeheadsError("--max-drop writes a file: say where, with --out DIR")
    if max_drop is not None and not math.isfinite(max_drop):
        raise EdgeheadsError(f"--max-drop must be finite, received {max_drop}")
    with terminal_progress(silent=as_json) as progress:
        with progress.step("Starting TensorFlow"):
            find = load_pipeline(
                "compression.sensitivity.run:find_sensitivity", "measuring sensitivity"
            )
        if out is not None:
            _prepare(out)
        result = find(
            file,
            recipe,
            samples=samples,
            with_metric=with_metric,
            max_drop=max_drop,
            per_channel=not per_tensor,
            progress=progress,
        )
    if out is not None:
        _write(result, out)
    if as_json:
        print_json(result.as_json())
    else:
        _print(result)


def _prepare(folder: Path) -> None:
    """Fail before minutes of measuring where nothing can be written or drawn."""
    from edgeheads.compression.sensitivity.plot import require_matplotlib
    from edgeheads.train import prepare_folder

    require_matplotlib()
    prepare_folder(folder)


def _write(result: SensitivityResult, folder: Path) -> None:
    from edgeheads.bundle import write_atomically
    from edgeheads.compression.sensitivity.plot import plot_errors

    if result.mixed is not None:
        write_atomically(folder / "mixed.tflite", result.mixed.content)
    content = json.dumps(result.as_json(), indent=2, allow_nan=False)
    write_atomically(folder / "sensitivity.json", content)
    write_atomically(folder / "sensitivity.png", plot_errors(result.layers))


def _print(result: SensitivityResult) -> None:
    metric = result.metric
    columns = ["layer", "kind", "MACs", "alone dB", "so far dB", "weights dB"]
    rows = [
        [
            one.layer.name[-48:],
            one.layer.kind,
            f"{one.layer.macs:,}",
            f"{one.isolated:.1f}",
            f"{one.accumulated:.1f}",
            f"{one.weights:.1f}",
            *([] if one.drop is None else [f"{rounded(one.drop, 4):.4f}"]),
        ]
        for one in result.layers
    ]
    if metric and any(one.drop is not None for one in result.layers):
        columns.append(f"{metric.title} drop")
    print_table("What int8 costs each layer, the most sensitive first", columns, rows)
    click.echo(f"Measured on {counted(result.images, 'training image')}.")
    if metric:
        click.echo(
            f"{metric.title} of the float model: {result.reference:.4f}, on "
            f"{counted(result.held_out, 'sample')} held out of training."
        )
    if metric and result.mixed is not None:
        kept = ", ".join(layer.name for layer in result.mixed.kept) or "none"
        click.echo(
            f"Mixed precision: {metric.title} drop {rounded(result.mixed.drop, 4):.4f} of "
            f"{result.mixed.max_drop:.4f}; float: {kept}"
        )
