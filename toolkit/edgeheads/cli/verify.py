"""`edgeheads verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeheads.cli.console import print_json, print_table
from edgeheads.cli.options import chosen_device, device_options, json_option, link_options
from edgeheads.errors import CheckFailedError

if TYPE_CHECKING:
    from edgeheads.targets.report import TargetReport
    from edgeheads.verify import Check


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@device_options
@link_options
@json_option
def verify(
    bundle: Path,
    device: str | None,
    threads: int | None,
    host: str | None,
    serial: str | None,
    python: str | None,
    as_json: bool,
) -> None:
    """Check that a Bundle's file does what its manifest says; exit 1 where it does not.

    With a --device that is not reachable from here, the file's own checks run on this machine,
    and the file is compared with what is published of the device.
    """
    from dataclasses import asdict

    from edgeheads.bundle import Bundle
    from edgeheads.device import DeviceProfile
    from edgeheads.runtime import DeviceSession
    from edgeheads.targets.report import check_target
    from edgeheads.verify import verify as run

    opened = Bundle(bundle)
    profile = chosen_device(device, threads, host, serial, python)
    has_target = bool(profile.op_rules or profile.vela.accelerator)
    target = check_target(opened, profile) if has_target or not profile.is_reachable else None
    with DeviceSession(profile if profile.is_reachable else DeviceProfile()) as session:
        checks = run(opened, session)
    every = [*checks, *(target.checks if target else [])]
    failed = [check for check in every if not check.passed]
    if as_json:
        print_json(
            {
                "model_sha256": opened.sha256,
                "passed": not failed,
                "checks": [asdict(check) for check in checks],
                "target": target.as_json() if target else None,
            }
        )
    else:
        _print_checks(f"{bundle} ({opened.precision}) on {session.where()}", checks)
        if target:
            _print_target(target, profile.title)
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(every)} checks failed, the first: "
            f"{failed[0].name}: {failed[0].detail}"
        )


def _print_checks(title: str, checks: list[Check]) -> None:
    print_table(
        title,
        ["check", "", "found"],
        [[check.name, "ok" if check.passed else "FAILED", check.detail] for check in checks],
    )


def _print_target(target: TargetReport, title: str) -> None:
    _print_checks(f"For {title}, without it", target.checks)
    groups: dict[tuple[str, bool, str], list[int]] = {}
    for one in target.placements:
        groups.setdefault((one.op, one.is_mapped, one.reason), []).append(one.index)
    if groups:
        print_table(
            "Operations by the published rules",
            ["operation", "count", "first", "runs on", "why"],
            [
                [op, str(len(places)), str(places[0]), title if is_mapped else "CPU", reason]
                for (op, is_mapped, reason), places in groups.items()
            ],
        )
        click.echo(f"Source: {target.source}")
    if target.compiler:
        click.echo(
            f"edgetpu_compiler: {target.compiler.cached_bytes} bytes of parameters on the chip, "
            f"{target.compiler.streamed_bytes} streamed"
        )
    if vela := target.vela:
        print_table(
            f"ESTIMATE by Vela {vela.version} for {vela.system}; nothing was measured",
            ["", "cycles", "of them NPU", "ms at full clock", "SRAM KiB", "DRAM KiB", "flash KiB"],
            [
                [
                    "estimate",
                    str(vela.cycles_total),
                    str(vela.cycles_npu),
                    f"{vela.latency_ms_estimate:.3f}",
                    *(
                        f"{size / 1024:.1f}"
                        for size in (vela.sram_bytes, vela.dram_bytes, vela.flash_bytes)
                    ),
                ]
            ],
        )
        if vela.cpu_operations:
            click.echo("The time of the operations on the CPU is not in the estimate.")
