"""`edgeheads check`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.console import print_json
from edgeheads.cli.options import json_option
from edgeheads.errors import CheckFailedError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("limits", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--device",
    "devices",
    metavar="LABEL",
    multiple=True,
    help="Whose measurements count; repeatable [default: host, this machine].",
)
@click.option("--allow-fallback", is_flag=True, help="Operations outside the delegate are fine.")
@json_option
def check(
    bundle: Path,
    limits: tuple[str, ...],
    devices: tuple[str, ...],
    allow_fallback: bool,
    as_json: bool,
) -> None:
    """Compare what was measured of BUNDLE with LIMITS, for a CI.

    \b
    LIMITS:
      --max-p50-ms N   also p90, p95, p99, mean
      --max-size-kb N  of the .tflite file, in 1000 bytes
      --min-METRIC N   or --max-METRIC N: a metric of the task, such as --min-delta1 0.8
      --max-drop N     of each judged metric, against the float model of the same images;
                       a fraction, or in the metric's unit

    \b
    Exit codes: 0 all limits hold; 1 one does not, was not measured, or the Bundle was changed;
    2 wrong use.
    """
    from edgeheads.bundle import Bundle
    from edgeheads.gate import check_limits, parse_limits
    from edgeheads.measurements import HOST

    opened = Bundle(bundle)
    verdicts = check_limits(
        opened, parse_limits(opened, limits), devices or (HOST,), allow_fallback=allow_fallback
    )
    passed = all(verdict.passed for verdict in verdicts)
    if as_json:
        print_json(
            {
                "schema_version": 1,
                "model_sha256": opened.sha256,
                "passed": passed,
                "limits": [verdict.as_json() for verdict in verdicts],
            }
        )
    else:
        for one in verdicts:
            found = one.reason if one.value is None else f"{one.name} {one.value:.6g}"
            where = f" on {one.device}" if one.device else ""
            word = "pass" if one.passed else "FAIL"
            click.echo(f"{word}  {one.limit} {one.bound:g}{where}: {found}")
    if not passed:
        failed = sum(not verdict.passed for verdict in verdicts)
        raise CheckFailedError(f"{failed} of {len(verdicts)} limits do not hold for {bundle}")
