"""`edgeheads devices`."""

from __future__ import annotations

import click

from edgeheads.cli.console import print_json, print_table, terminal_progress
from edgeheads.cli.options import chosen_device, json_option, link_options
from edgeheads.device import DeviceProfile, list_devices, load_device
from edgeheads.errors import CheckFailedError


@click.group()
def devices() -> None:
    """List device profiles; look at a device, or set it up."""


@devices.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the profiles that ship."""
    from dataclasses import asdict

    profiles = [load_device(name) for name in list_devices()]
    if as_json:
        print_json([asdict(profile) for profile in profiles])
        return
    print_table(
        "Devices; a profile of your own: --device FILE.yaml",
        ["name", "title", "link", "delegate", "threads", "precisions", "op rules"],
        [
            [
                one.name,
                one.title,
                one.link,
                one.delegate,
                str(one.threads),
                " ".join(one.quantization.precisions),
                one.op_rules or ("vela" if one.vela.accelerator else ""),
            ]
            for one in profiles
        ],
    )


@devices.command()
@click.argument("device", metavar="NAME|FILE")
@json_option
def show(device: str, as_json: bool) -> None:
    """Show a profile: every key, and where its facts are from."""
    from dataclasses import asdict

    profile = load_device(device)
    if as_json:
        print_json(asdict(profile))
        return
    rows = []
    for key, value in asdict(profile).items():
        if key == "sources":
            continue
        items = value.items() if isinstance(value, dict) else [("", value)]
        for inner, one in items:
            text = " ".join(one) if isinstance(one, tuple) else str(one)
            rows.append([f"{key}.{inner}" if inner else key, text])
    print_table(profile.title, ["key", "value"], rows)
    for source in profile.sources:
        click.echo(f"Source: {source}")


@devices.command()
@click.argument("device", metavar="[NAME|FILE]", required=False)
@link_options
@json_option
def doctor(
    device: str | None, host: str | None, serial: str | None, python: str | None, as_json: bool
) -> None:
    """Connect to a device, and say what is there and what is missing; exit 1 where it is.

    Nothing is changed on the device.
    """
    from edgeheads.links import setup

    profile = _chosen(device, host, serial, python)
    findings, facts = setup.diagnose(profile)
    missing = [one for one in findings if not one.is_fine]
    if as_json:
        print_json(setup.as_json(findings, facts, profile))
    else:
        print_table(
            f"{profile.title}{f' at {profile.host}' if profile.host else ''}",
            ["", "", "found", "what to do"],
            [
                [one.name, "ok" if one.is_fine else "MISSING", one.detail, one.advice]
                for one in findings
            ],
        )
    if missing:
        raise CheckFailedError(
            f"{profile.name} is not ready: {missing[0].name}: {missing[0].detail}; "
            f"{missing[0].advice}"
        )


@devices.command("setup")
@click.argument("device", metavar="[NAME|FILE]", required=False)
@link_options
@json_option
def setup_command(
    device: str | None, host: str | None, serial: str | None, python: str | None, as_json: bool
) -> None:
    """Install an interpreter on a device, once: in a virtual environment of its own there."""
    from edgeheads.links import setup

    profile = _chosen(device, host, serial, python)
    with terminal_progress(silent=as_json) as progress:
        result = setup.set_up(profile, progress)
    if as_json:
        print_json({"device": profile.name, **result})
    else:
        click.echo(f"{profile.title}: {result['venv']} {result['state']}; it is used from now on")


def _chosen(
    device: str | None, host: str | None, serial: str | None, python: str | None
) -> DeviceProfile:
    return chosen_device(device, None, host, serial, python)
