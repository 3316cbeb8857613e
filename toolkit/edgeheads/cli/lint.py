"""`edgeheads lint`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import load_pipeline, model_in, recipe_beside
from edgeheads.compression.lint.finding import Finding, count_severities
from edgeheads.device import load_device
from edgeheads.errors import CheckFailedError, EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.compression.lint.effect import Effect
    from edgeheads.compression.lint.fix import FixResult
    from edgeheads.recipe import Recipe

# The severities that fail, by the value of --fail-on.
_FAILING = {"error": ("error",), "warning": ("error", "warning"), "never": ()}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME|FILE", help="Device profile [default: any int8 device].")
@click.option(
    "--fix",
    "fix_to",
    metavar="OUT.keras",
    type=click.Path(path_type=Path),
    help="Write a model that computes the same, with what can be rewritten safely rewritten.",
)
@click.option(
    "--metric",
    "with_metric",
    is_flag=True,
    help="With --fix: score and time the int8 file before and after; needs the run's recipe.",
)
@click.option(
    "--fail-on",
    type=click.Choice(list(_FAILING)),
    default="error",
    show_default=True,
    help="Leave with exit code 1 if there is one; with --fix, if one is left.",
)
@json_option
def lint(
    model: Path,
    device: str | None,
    fix_to: Path | None,
    with_metric: bool,
    fail_on: str,
    as_json: bool,
) -> None:
    """Show what in MODEL is hostile to int8 or to a device, why, and what to use instead.

    MODEL is a .keras or .h5 file or a run's folder. With the run's recipe beside it, the part that
    becomes the .tflite file is looked at, and not what is computed from the file's results. Of a
    .tflite file or a Bundle, the operations are shown that the --device leaves to its CPU.
    """
    profile = load_device(device) if device else None
    file = model_in(model)
    recipe = _recipe_of(file)
    if with_metric:
        _require_for_metric(file, fix_to, recipe)
    fix: FixResult | None = None
    effect: Effect | None = None
    if model.suffix == ".tflite" or (model / "model.tflite").is_file():
        from edgeheads.compression.lint.lite import lint_lite

        if fix_to is not None:
            raise EdgeheadsError(
                f"--fix rewrites a .keras or .h5 file, received {model}; convert the rewritten one"
            )
        findings = lint_lite(model if model.suffix else model / "model.tflite", profile)
    else:
        with terminal_progress(silent=as_json) as progress:
            with progress.step("Starting TensorFlow"):
                look = load_pipeline("compression.lint.run:lint_file", "linting a model")
            result = look(
                file,
                profile,
                fix_to,
                recipe=recipe,
                with_effect=with_metric,
                progress=progress,
            )
        findings, fix, effect = result.findings, result.fix, result.effect
    if as_json:
        print_json(
            {
                "model": str(model),
                "device": profile.name if profile else None,
                "counts": count_severities(findings),
                "findings": [asdict(one) for one in findings],
                "fix": fix and {"written": str(fix_to), **fix.as_json()},
                "effect": effect and effect.as_json(),
            }
        )
    else:
        _print(findings)
        if fix is not None:
            _print_fix(fix, fix_to)
        if effect is not None:
            _print_effect(effect)
    _fail(model, fix.findings if fix else findings, _FAILING[fail_on])


def _recipe_of(file: Path) -> Recipe | None:
    """Return the recipe that a model was trained by, if it lies beside it."""
    beside = recipe_beside(file)
    if beside is None:
        return None
    from edgeheads.recipe import load_recipe

    return load_recipe(beside)


def _require_for_metric(file: Path, fix_to: Path | None, recipe: Recipe | None) -> None:
    if fix_to is None:
        raise EdgeheadsError("--metric compares MODEL with what --fix makes of it: add --fix")
    if recipe is None:
        raise EdgeheadsError(
            "--metric needs labels, which the recipe of a run names, and there is no "
            f"{file.with_name('recipe.yaml')}; give the folder of edgeheads train"
        )


def _fail(model: Path, findings: Sequence[Finding], failing: Sequence[str]) -> None:
    counts = count_severities(findings)
    found = [f"{counts[name]} {name}{'s' * (counts[name] > 1)}" for name in failing if counts[name]]
    if found:
        raise CheckFailedError(f"lint of {model} found {' and '.join(found)}")


def _print(findings: Sequence[Finding]) -> None:
    by_rule: dict[str, list[Finding]] = {}
    for one in findings:
        by_rule.setdefault(one.rule, []).append(one)
    for rule, found in by_rule.items():
        first = found[0]
        click.echo(f"{first.severity}: {rule} ({len(found)}{', --fix' * first.fixable})")
        click.echo(f"  why:     {first.why}")
        click.echo(f"  instead: {first.instead}")
        for one in found:
            click.echo(f"    {one.layer} ({one.kind}): {one.detail}")
        click.echo("")
    counts = count_severities(findings)
    click.echo(", ".join(f"{count} {name}(s)" for name, count in counts.items()))


def _print_fix(fix: FixResult, out: Any) -> None:
    click.echo(
        f"\n{out}: {fix.folded_norms} batch normalizations folded, {fix.expanded} ", nl=False
    )
    click.echo("hard-swishes expanded")
    if fix.equalization is not None:
        click.echo(
            f"  {len(fix.equalization.chains)} chains of layers equalized: the weights of their "
            f"channels differed {fix.equalization.spread_before:.3g} times, now "
            f"{fix.equalization.spread_after:.3g} (median)"
        )
    click.echo(f"  outputs differ by {fix.difference:.2g} of their range on random inputs")
    counts = count_severities(fix.findings)
    click.echo("  left: " + ", ".join(f"{count} {name}(s)" for name, count in counts.items()))


def _print_effect(effect: Effect) -> None:
    metric = effect.metric
    rows = [["float32", f"{effect.reference:.4f}", "-", "-", "-", "-"]]
    for name, one in (("int8", effect.before), ("int8, rewritten", effect.after)):
        drop = metric.format(metric.drop(effect.reference, one.value))
        size = f"{one.size_bytes / 1000:.1f}"
        rows.append(
            [name, f"{one.value:.4f}", drop, size, f"{one.p50_ms:.3f}", f"{one.ratio:.2f}x"]
        )
    print_table(
        f"{effect.samples} samples held out of training",
        ["file", metric.title, "drop", "kB", "p50 ms", "of int8"],
        rows,
    )
