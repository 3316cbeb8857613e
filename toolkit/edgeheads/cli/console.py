"""Tables and progress bars: drawn by rich where it is installed, plain text elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeheads.progress import Progress, SilentProgress, Step

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["counted", "print_json", "print_table", "short_path", "terminal_progress"]


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are aligned to the right."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _print_plain(title, columns, rows)
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width; a table cut to 80 columns would lose figures.
    console = Console()
    Console(width=None if console.is_terminal else 200, highlight=False).print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    click.echo(title)
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def counted(count: int, noun: str) -> str:
    """Return a number of things, such as "1 image" and "2 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def short_path(path: str | Path) -> str:
    """Return the last two parts of a path: in a table, what tells Bundles apart."""
    return str(Path(*Path(path).parts[-2:]))


def print_json(content: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(content, indent=2, allow_nan=False))


@contextmanager
def terminal_progress(*, silent: bool = False) -> Iterator[Progress]:
    """Draw progress bars on stderr while the block runs."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:
        silent = True
    if silent:
        yield SilentProgress()
        return
    # A descriptor of its own: the bars stay visible while native log lines are held back.
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as terminal:
        bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(file=terminal),
        )
        try:
            yield _RichProgress(bars)
        finally:
            # Where nothing was drawn, stopping would print an empty line before an error.
            if bars.live.is_started:
                bars.stop()


class _RichProgress:
    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars

    @contextmanager
    def step(self, title: str, total: int | None = None) -> Iterator[Step]:
        self._bars.start()
        task = self._bars.add_task(title, total=total, note="")
        yield _RichStep(self._bars, task)
        # Work of unknown length is whole when it is over.
        if total is None:
            self._bars.update(task, total=1, completed=1)


class _RichStep:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._bars.update(self._task, advance=amount, note=note)
