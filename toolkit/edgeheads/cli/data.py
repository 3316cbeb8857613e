"""`edgeheads data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import json_option
from edgeheads.errors import CheckFailedError, EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.data.check import DataReport

_SHOWN = 10


@click.group()
def data() -> None:
    """Look at labelled images before training on them."""


@data.command()
@click.argument("folder", metavar="DIR")
@click.option(
    "--format", "data_format", metavar="NAME", help="Of DIR [default: what it looks like]."
)
@click.option("--keypoint-crops", is_flag=True, help="COCO: one sample per object with keypoints.")
@click.option("--strict", is_flag=True, help="Exit with 1 where anything is wrong.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("contact.png"),
    show_default=True,
    help="Contact sheet.",
)
@json_option
def check(
    folder: str,
    data_format: str | None,
    keypoint_crops: bool,
    strict: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Read all of DIR (or tfds:NAME, or synthetic), report what is in it, and draw its labels."""
    from edgeheads.data.check import check_data
    from edgeheads.recipe import DataSection

    section = DataSection(
        source=folder, format=data_format or "auto", keypoint_crops=keypoint_crops
    )
    with terminal_progress(silent=as_json) as progress:
        report = check_data(section.model_dump(mode="json"), progress=progress)
    sheet = _write_sheet(report, out)
    if as_json:
        print_json({**report.values(), "contact_sheet": sheet and str(sheet)})
    else:
        _print_report(report, sheet)
    if strict and (report.bad or report.problems):
        raise CheckFailedError(
            f"{len(report.bad)} bad files and {len(report.problems)} label problems in {folder}, "
            f"the first: {[*report.bad, *report.problems][0]}"
        )


def _write_sheet(report: DataReport, out: Path) -> Path | None:
    from edgeheads.data.contact_sheet import contact_sheet

    if not report.cells:
        return None
    from PIL import Image

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(contact_sheet(report.cells)).save(out)
    except (OSError, ValueError) as error:
        raise EdgeheadsError(
            f"cannot write {out} ({error}); choose another .png file with --out"
        ) from None
    return out


def _print_report(report: DataReport, sheet: Path | None) -> None:
    values = report.values()
    splits = ", ".join(f"{count:,} {split}" for split, count in report.splits.items())
    click.echo(f"{report.source}: {report.format}, {splits} ({report.rule})")
    click.echo(f"Usable: {report.usable:,} of {sum(report.splits.values()):,} samples")
    for side in ("width", "height"):
        size = values[f"image_{side}_px"]
        if size:
            click.echo(
                f"Image {side}: {size['min']} to {size['max']} px, median {size['median']:g}"
            )
    serves = ", ".join(f"{task} ({count:,})" for task, count in report.tasks.items())
    click.echo(f"Labels serve: {serves or 'no task'}")
    if report.classes:
        print_table(
            f"{len(report.classes)} classes",
            ["class", "count"],
            [[name, f"{count:,}"] for name, count in sorted(report.classes.items())],
        )
    if report.keypoints:
        counts = sorted(report.keypoints.values())
        click.echo(
            f"{len(counts)} keypoints, each labelled in {counts[0]:,} to {counts[-1]:,} images; "
            f"{len(report.mirrored)} pairs change places in a mirror"
        )
    if report.pixels:
        total = max(1, sum(report.pixels.values()))
        print_table(
            f"{len(report.pixels)} classes of pixels",
            ["class", "share"],
            [[name, f"{count / total:.2%}"] for name, count in report.pixels.items()],
        )
    _print_findings("bad files", report.bad)
    _print_findings("label problems", report.problems)
    if sheet:
        click.echo(f"Contact sheet: {sheet}")


def _print_findings(title: str, findings: list[str]) -> None:
    click.echo(f"{len(findings):,} {title}" + (":" if findings else ""))
    for finding in findings[:_SHOWN]:
        click.echo(f"  {finding}")
    if len(findings) > _SHOWN:
        click.echo(f"  and {len(findings) - _SHOWN:,} more; --json lists them all")
