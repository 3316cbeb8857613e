"""The `edgeheads` command. Each command is a file here, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

import edgeheads
from edgeheads.errors import EdgeheadsError

__all__ = ["COMMANDS", "main"]

# command -> (module:function, one line of help). The help stands here so that listing the
# commands imports none of them.
COMMANDS = {
    "convert": ("convert:convert", "Train a model and turn it into proved .tflite Bundles."),
    "train": ("train:train", "Train a model, with checkpoints and learning curves."),
    "prune": ("prune:prune", "Remove channels or weights of a trained model; let it recover."),
    "quantize": ("quantize:quantize", "Turn a Keras model into a quantized .tflite file."),
    "lint": ("lint:lint", "Show what in a model is hostile to int8 or to a device; fix it."),
    "sensitivity": ("sensitivity:sensitivity", "Show what int8 costs each layer of a model."),
    "verify": ("verify:verify", "Check that a Bundle's file does what its manifest says."),
    "evaluate": ("evaluate:evaluate", "Score a Bundle's file on labelled images."),
    "bench": ("bench:bench", "Time Bundles, or .tflite files, against each other."),
    "devices": ("devices:devices", "List device profiles; look at a device, or set it up."),
    "inspect": ("inspect:inspect", "Show what is in a Bundle or a .tflite file."),
    "heads": ("heads:heads", "Show what each task's head costs on a backbone."),
    "data": ("data:data", "Check a folder of labelled images, and draw its labels."),
    "check": ("check:check", "Hold a Bundle's measurements against limits, for a CI."),
    "report": ("report:report", "Merge what was measured of many Bundles: a table or a page."),
    "recipes": ("recipes:recipes", "List the recipes that ship, or show one."),
    "predict": ("predict:predict", "Draw what a Bundle predicts on images."),
}

_INTERRUPTED = 130


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(f"edgeheads.cli.{module}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(edgeheads.__version__, prog_name="edgeheads")
def cli() -> None:
    """Vision models as small .tflite files, proved on the device they are for.

    Start with: edgeheads convert --task depth

    \b
    Exit codes: 0 done; 1 a check failed; 2 wrong use or input;
    3 the converter, interpreter or link failed; 4 a budget cannot be held; 130 interrupted.
    """


def main() -> None:
    """Run the command line: an error of the user's is one line on stderr, without a traceback."""
    try:
        cli.main(standalone_mode=False)
    except EdgeheadsError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was left half-written", _INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _fail(text: str, exit_code: int) -> None:
    click.echo(f"edgeheads: {' '.join(text.split())}", err=True)
    sys.exit(exit_code)
