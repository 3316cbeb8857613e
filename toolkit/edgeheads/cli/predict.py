"""`edgeheads predict`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeheads.cli.options import chosen_device, device_options


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("predictions"),
    show_default=True,
    help="Folder for the pictures.",
)
@device_options
def predict(
    bundle: Path, images: tuple[Path, ...], out: Path, device: str | None, threads: int | None
) -> None:
    """Draw what a Bundle predicts on IMAGES, beside each, as PNG."""
    from edgeheads.bundle import Bundle
    from edgeheads.predict import predict_images
    from edgeheads.runtime import DeviceSession

    opened = Bundle(bundle)
    with DeviceSession(chosen_device(device, threads)) as session:
        for path, _ in predict_images(opened, session, images, out):
            click.echo(str(path))
