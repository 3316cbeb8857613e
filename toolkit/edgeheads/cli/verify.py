"""`edgeheads verify`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.console import print_json, print_table
from edgeheads.cli.options import chosen_device, device_options, json_option
from edgeheads.errors import CheckFailedError


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@device_options
@json_option
def verify(bundle: Path, device: str | None, threads: int | None, as_json: bool) -> None:
    """Check that a Bundle's file does what its manifest says; exit 1 where it does not."""
    from dataclasses import asdict

    from edgeheads.bundle import Bundle
    from edgeheads.runtime import DeviceSession
    from edgeheads.verify import verify as run

    opened = Bundle(bundle)
    with DeviceSession(chosen_device(device, threads)) as session:
        checks = run(opened, session)
    failed = [check for check in checks if not check.passed]
    if as_json:
        print_json(
            {
                "model_sha256": opened.sha256,
                "passed": not failed,
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        print_table(
            f"{bundle} ({opened.precision})",
            ["check", "", "found"],
            [[check.name, "ok" if check.passed else "FAILED", check.detail] for check in checks],
        )
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(checks)} checks failed, the first: "
            f"{failed[0].name}: {failed[0].detail}"
        )
