"""`edgeheads lint`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeheads.cli.console import print_json, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.cli.recipe_options import load_pipeline
from edgeheads.device import load_device
from edgeheads.errors import CheckFailedError

if TYPE_CHECKING:
    from edgeheads.compression.lint.rule import Finding

# What --fail-on lets fail, by the severities that it counts.
_FAILING = {"error": ("error",), "warning": ("error", "warning"), "never": ()}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME|FILE", help="Device profile [default: any int8 device].")
@click.option(
    "--fail-on",
    type=click.Choice(list(_FAILING)),
    default="error",
    show_default=True,
    help="Leave with exit code 1 if there is one.",
)
@json_option
def lint(model: Path, device: str | None, fail_on: str, as_json: bool) -> None:
    """Show what in MODEL, a .keras or .h5 file, is hostile to int8 or to a device, and why."""
    profile = load_device(device) if device else None
    file = model / "model.keras" if model.is_dir() else model
    with terminal_progress(silent=as_json) as progress, progress.step("Starting TensorFlow"):
        look = load_pipeline("compression.lint.run:lint_file", "linting a model")
        result = look(file, profile)
    findings = result.findings
    if as_json:
        print_json(
            {
                "model": str(model),
                "device": profile.name if profile else None,
                "counts": result.counts,
                "findings": [asdict(one) for one in findings],
            }
        )
    else:
        _print(file, findings)
    counted = {name: result.counts[name] for name in _FAILING[fail_on]}
    if sum(counted.values()):
        found = ", ".join(f"{count} {name}(s)" for name, count in counted.items())
        raise CheckFailedError(f"{model}: {found}; --fail-on never shows them without failing")


def _print(file: Path, findings: list[Finding]) -> None:
    by_rule: dict[str, list[Finding]] = {}
    for one in findings:
        by_rule.setdefault(one.rule, []).append(one)
    for rule, found in by_rule.items():
        first = found[0]
        fixable = ", --fix" if first.fixable else ""
        click.echo(f"{first.severity}: {rule} ({len(found)}{fixable})")
        click.echo(f"  why:     {first.why}")
        click.echo(f"  instead: {first.instead}")
        for one in found:
            click.echo(f"    {one.layer} ({one.kind}): {one.detail}")
        click.echo("")
    if not findings:
        click.echo(f"{file}: nothing found")
