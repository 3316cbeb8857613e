"""The formats that folders of labelled images come in. One file each; the table lists them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeheads.data.formats.listing import Listing, ReadOptions
from edgeheads.errors import EdgeheadsError, unknown_name

__all__ = ["FORMATS", "Format", "find_format", "get_format"]

# format -> module here, imported on use.
FORMATS = {
    "class-folders": "class_folders",
    "csv-keypoints": "csv_keypoints",
    "coco": "coco",
    "voc": "voc",
    "mask-folders": "mask_folders",
    "instance-folders": "instance_folders",
    "rgbd": "rgbd",
}


class Format(Protocol):
    """What the module of a format has.

    Attributes:
        EXPECTED: what a folder of the format holds, for messages.
    """

    EXPECTED: str

    def detect(self, folder: Path) -> bool:
        """Tell whether a folder looks like one of the format, without reading much of it."""
        ...

    def read(self, folder: Path, options: ReadOptions) -> Listing:
        """List what the folder holds; the pictures are opened later, one by one.

        Raises:
            EdgeheadsError: a folder of which nothing can be read.
        """
        ...


def get_format(name: str) -> Format:
    """Return the module of a format.

    Raises:
        EdgeheadsError: the name is unknown.
    """
    if name not in FORMATS:
        raise unknown_name("data format", name, FORMATS)
    return cast(Format, import_module(f"edgeheads.data.formats.{FORMATS[name]}"))


def find_format(folder: Path) -> str:
    """Return the name of the one format that a folder looks like.

    Raises:
        EdgeheadsError: it looks like none, or like several; the text says what each expects.
    """
    found = [name for name in FORMATS if get_format(name).detect(folder)]
    if len(found) == 1:
        return found[0]
    looks = f"looks like {' and '.join(found)} at once" if found else "is in no known format"
    expected = "; ".join(f"{name}: {get_format(name).EXPECTED}" for name in found or FORMATS)
    raise EdgeheadsError(
        f"data folder {folder} {looks}; say which it is with --format (data.format in a recipe). "
        f"Expected of {expected}"
    )
