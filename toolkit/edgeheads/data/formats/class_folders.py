"""Class folders: one folder of pictures for each class."""

from __future__ import annotations

import re
from functools import partial
from itertools import zip_longest
from pathlib import Path

from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    list_files,
    split_folders,
)
from edgeheads.data.images import IMAGE_SUFFIXES, read_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read"]

EXPECTED = "DIR/<class>/*.jpg, or DIR/train/<class>/*.jpg and DIR/test/<class>/*.jpg"

# Folders of other formats, which are no classes.
_NO_CLASSES = {*IMAGE_FOLDERS, "color", "colour", "rgb"}
_COCO_SPLIT = re.compile(r"(train|val|test)\d{4}")


def detect(folder: Path) -> bool:
    """Look for two classes or more, each a folder with pictures in it."""
    part = next(iter(split_folders(folder).values()))
    folders = _class_folders(part)
    if len(folders) < 2 or any(
        one.name in _NO_CLASSES or _COCO_SPLIT.fullmatch(one.name) for one in folders
    ):
        return False
    return any(list_files(one) for one in folders)


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the pictures, classes in turn, so that any stretch of them holds all classes.

    Raises:
        EdgeheadsError: there are no classes, or a split has a class that training has not.
    """
    parts = split_folders(folder)
    first = next(iter(parts.values()))
    classes = tuple(one.name for one in _class_folders(first))
    if not classes:
        raise EdgeheadsError(f"{first} has no folders; expected {EXPECTED}")
    for part in parts.values():
        unknown = sorted({one.name for one in _class_folders(part)} - set(classes))
        if unknown:
            raise EdgeheadsError(
                f"{part} has a class {unknown[0]!r} that {first} has not; "
                f"its classes are {', '.join(classes)}"
            )
    splits = {split: _entries(folder, part, classes) for split, part in parts.items()}
    problems = [
        f"{first / name} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)} files"
        for name in classes
        if not list_files(first / name)
    ]
    return Listing(splits, LabelNames(classes=classes), tuple(problems))


def _entries(folder: Path, part: Path, classes: tuple[str, ...]) -> list[Entry]:
    columns = []
    for label, name in enumerate(classes):
        files = list_files(part / name) if (part / name).is_dir() else []
        columns.append(
            [
                Entry(path.relative_to(folder).as_posix(), partial(_load, path, label), name)
                for path in files
            ]
        )
    return [entry for row in zip_longest(*columns) for entry in row if entry is not None]


def _load(path: Path, label: int) -> Sample:
    return Sample(image=read_rgb(path), name=str(path), label=label)


def _class_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"]
