"""`edgeheads report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.console import print_json
from edgeheads.cli.options import json_option


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
def report(folders: tuple[Path, ...], as_json: bool) -> None:
    """Print what was measured of all Bundles in FOLDERS as one Markdown table."""
    from dataclasses import asdict

    from edgeheads.report.table import collect_rows, find_bundles, to_markdown

    rows = collect_rows(find_bundles(folders))
    if as_json:
        # Infinity, a metric's upper limit, is no JSON.
        print_json([{**asdict(row), "metric": row.metric.name, "drop": row.drop} for row in rows])
    else:
        click.echo(to_markdown(rows))
