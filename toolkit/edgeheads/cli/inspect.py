"""`edgeheads inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.console import print_json, print_table
from edgeheads.cli.options import chosen_device, device_options, json_option


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@device_options
@json_option
def inspect(model: Path, device: str | None, threads: int | None, as_json: bool) -> None:
    """Show MODEL (a Bundle, or a .tflite file): tensors, operators, size, delegate coverage."""
    from edgeheads.bundle import Bundle
    from edgeheads.runtime import DeviceSession

    path = model if model.suffix == ".tflite" else Bundle(model).model_path
    with DeviceSession(chosen_device(device, threads)) as session:
        facts = session.inspect(path)
    if as_json:
        print_json(facts)
        return
    print_table(
        f"{path}: {path.stat().st_size:,} bytes, SHA-256 {facts['sha256'][:16]}...",
        ["tensor", "name", "shape", "dtype", "scale", "zero point"],
        [
            [
                role,
                tensor["name"],
                "x".join(map(str, tensor["shape"])),
                tensor["dtype"],
                "–" if tensor["scale"] is None else f"{tensor['scale']:.6g}",
                "–" if tensor["zero_point"] is None else str(tensor["zero_point"]),
            ]
            for role, tensors in (("input", facts["inputs"]), ("output", facts["outputs"]))
            for tensor in tensors
        ],
    )
    print_table(
        f"{facts['nodes']} nodes",
        ["operator", "dtypes", "count", "delegated"],
        [
            [op["name"], op["dtypes"], str(op["count"]), str(op["delegated"])]
            for op in sorted(facts["ops"], key=lambda op: -op["count"])
        ],
    )
    click.echo(
        f"{facts['delegated_nodes']} of {facts['nodes']} nodes run in {facts['delegate']}, in "
        f"{facts['delegate_partitions']} partition(s); {facts['integer_nodes']} compute in integers"
    )
    for node in facts["undelegated"]:
        where = f"node {node['index']} {node['op']} ({node['dtypes']})"
        click.echo(f"  left to the interpreter: {where}")
