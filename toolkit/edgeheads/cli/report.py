"""`edgeheads report`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeheads.cli.console import print_json
from edgeheads.cli.options import json_option
from edgeheads.errors import EdgeheadsError

_SUFFIXES = {".html": "html", ".json": "json", ".md": "markdown"}
_NAMES = {kind: suffix.removeprefix(".") for suffix, kind in _SUFFIXES.items()}


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["html", "markdown", "json"]),
    help="html: one page with charts; json: all that was measured [default: as --out ends].",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write [default: stdout].")
@json_option
def report(folders: tuple[Path, ...], kind: str | None, out: Path | None, as_json: bool) -> None:
    """Merge what was measured of all Bundles in FOLDERS; a Markdown table by default."""
    kind = kind or (_SUFFIXES.get(out.suffix, "html") if out else None)
    if as_json and kind:
        raise EdgeheadsError("--json prints the table's rows; for all values, --format json alone")
    if as_json:
        _print_rows(folders)
        return
    text = _text(folders, kind)
    if out is None:
        click.echo(text)
        return
    from edgeheads.bundle import write_atomically

    target = out / f"report.{_NAMES[kind or 'html']}" if out.is_dir() else out
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, text + "\n")
    except OSError as error:
        raise EdgeheadsError(
            f"cannot write {target} ({error.strerror or error}); choose another file with --out"
        ) from None
    click.echo(str(target))


def _text(folders: tuple[Path, ...], kind: str | None) -> str:
    if kind is None:
        from edgeheads.report.table import collect_rows, find_bundles, to_markdown

        return to_markdown(collect_rows(find_bundles(folders)))
    from edgeheads.report.collect import collect_report

    content = collect_report(folders)
    if kind == "json":
        return json.dumps(content, indent=2, allow_nan=False)
    if kind == "markdown":
        from edgeheads.report.text import content_to_markdown

        return content_to_markdown(content)
    from edgeheads.report.page import to_html

    return to_html(content)


def _print_rows(folders: tuple[Path, ...]) -> None:
    from dataclasses import asdict

    from edgeheads.report.table import collect_rows, find_bundles

    rows = collect_rows(find_bundles(folders))
    # Infinity, a metric's upper limit, is no JSON.
    print_json([{**asdict(row), "metric": row.metric.name, "drop": row.drop} for row in rows])
