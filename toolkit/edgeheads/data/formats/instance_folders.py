"""Mask-per-instance folders: one folder for each picture, with a mask for each object in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.labels import Complaints, fit_mask, make_objects, require_few
from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    find_subfolder,
    list_files,
    read_class_names,
    split_folders,
)
from edgeheads.data.images import read_ids, read_rgb
from edgeheads.data.sample import LabelNames, Sample, box_around
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read"]

EXPECTED = "DIR/<id>/images/<one picture> beside DIR/<id>/masks/*.png, one for each object"

_MASK_FOLDERS = ("masks", "mask")
_CLASS = "object"
_LOOKED_AT = 5


def detect(folder: Path) -> bool:
    """Look for folders with a folder of pictures and one of masks in each."""
    part = next(iter(split_folders(folder).values()))
    return any(len(list_files(_pictures_of(one))) == 1 for one in _identities(part)[:_LOOKED_AT])


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the folders. All objects are of one class, which a labels.txt may name.

    Raises:
        EdgeheadsError: there are no such folders, or labels.txt names several classes.
    """
    names = read_class_names(folder) or (_CLASS,)
    if len(names) > 1:
        raise EdgeheadsError(
            f"{folder} names {len(names)} classes, but the format says nothing of the class of a "
            "mask; expected one name"
        )
    splits = {}
    for split, part in split_folders(folder).items():
        identities = _identities(part)
        if not identities:
            raise EdgeheadsError(f"{part} has no folders of the format; expected {EXPECTED}")
        splits[split] = [
            Entry(one.relative_to(folder).as_posix(), partial(_load, one)) for one in identities
        ]
    return Listing(splits, LabelNames(classes=names))


def _identities(part: Path) -> list[Path]:
    return [
        path
        for path in sorted(part.iterdir())
        if path.is_dir()
        and find_subfolder(path, IMAGE_FOLDERS)
        # A picture without objects may have no folder of masks; one that stands alone has no id.
        and path.name not in IMAGE_FOLDERS
    ]


def _pictures_of(identity: Path) -> Path:
    return find_subfolder(identity, IMAGE_FOLDERS) or identity


def _load(identity: Path) -> Sample:
    pictures = list_files(_pictures_of(identity))
    if len(pictures) != 1:
        raise EdgeheadsError(
            f"{_pictures_of(identity)} must hold one picture, received {len(pictures)}"
        )
    image = read_rgb(pictures[0])
    size = image.shape[:2]
    folder = find_subfolder(identity, _MASK_FOLDERS)
    paths = [] if folder is None else list_files(folder, (".png", ".bmp", ".tif", ".tiff"))
    require_few(len(paths), str(identity), size)
    complaints = Complaints(str(pictures[0]))
    masks = [mask for path in paths if (mask := _read_mask(path, size, complaints)).any()]
    for _ in range(len(paths) - len(masks)):
        complaints.add("mask without a pixel, left out")
    objects = make_objects(
        [box_around(mask) for mask in masks],
        [0] * len(masks),
        [False] * len(masks),
        size,
        complaints,
        masks,
    )
    return Sample(image=image, name=str(pictures[0]), objects=objects, problems=complaints.texts())


def _read_mask(path: Path, size: tuple[int, int], complaints: Complaints) -> NDArray[Any]:
    """Return the pixels of at least half the greatest value: of 0/1, 0/255 and softened masks."""
    values, _ = read_ids(path)
    greatest = int(values.max(initial=0))
    mask: NDArray[np.bool_] = (values > 0) & (values.astype(np.int64) * 2 >= greatest)
    return fit_mask(mask, size, str(path), complaints)
