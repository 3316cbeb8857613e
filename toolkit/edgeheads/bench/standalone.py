"""Running a benchmark's command by itself: `python -m edgeheads.bench.NAME`."""

from __future__ import annotations

import click

from edgeheads.errors import EdgeheadsError

__all__ = ["run_command"]


def run_command(command: click.Command) -> None:
    """Run the command; a wrong request is one line, without a traceback."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        raise SystemExit(130) from None
    except EdgeheadsError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_code) from None
