"""Image and mask folders: pictures beside maps of the same name that say each pixel's class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.labels import Complaints, fit_mask, read_labelled_picture
from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    files_by_stem,
    find_subfolder,
    read_class_names,
    split_folders,
)
from edgeheads.data.images import read_ids
from edgeheads.data.sample import IGNORED, LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read"]

EXPECTED = "DIR/images/*.jpg beside DIR/masks/*.png of the same names, optionally labels.txt"

_MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "SegmentationClass")
_MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
_UNKNOWN = 255
# Without labels.txt, more classes than this are rather the numbers of instances.
_MAX_CLASSES = 256


def detect(folder: Path) -> bool:
    """Look for a folder of pictures, and one of masks that holds some."""
    for part in split_folders(folder).values():
        images, masks = _folders(part)
        if images is None or masks is None or not files_by_stem(masks, _MASK_SUFFIXES):
            return False
    return True


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the pictures, each with the mask of its name.

    Class names are the lines of labels.txt; without one, every mask is read once to learn which
    numbers there are. Masks are taken for binary, object where a pixel is 128 or more, if their
    grey values are nothing but 0 and 255, or some are from 128 to 254, as the softened edges of a
    cut-out are; labels.txt with more than two names says that they are not. Otherwise a value
    is a class, and 255 counts for nothing.

    Raises:
        EdgeheadsError: there is no folder of pictures or of masks, or nothing tells the classes.
    """
    pairs = {split: _pairs(part) for split, part in split_folders(folder).items()}
    names = read_class_names(folder)
    masks = [mask for part in pairs.values() for _, mask in part if mask is not None]
    binary = len(names) <= 2 and _look_binary(_values_in(_fingerprints(masks)))
    if binary:
        names = _binary_names(names)
    elif not names:
        names = _numbered_names(_values_in(_fingerprints(masks)), folder)
    splits = {
        split: [
            Entry(
                image.relative_to(folder).as_posix(),
                partial(_load, image, mask, len(names), binary),
            )
            for image, mask in part
        ]
        for split, part in pairs.items()
    }
    return Listing(splits, LabelNames(semantic=names), tuple(_strays(folder)))


def _folders(part: Path) -> tuple[Path | None, Path | None]:
    return find_subfolder(part, IMAGE_FOLDERS), find_subfolder(part, _MASK_FOLDERS)


def _pairs(part: Path) -> list[tuple[Path, Path | None]]:
    images, masks = _folders(part)
    if images is None or masks is None:
        raise EdgeheadsError(
            f"{part} needs a folder of pictures and one of masks, expected names are "
            f"{', '.join(IMAGE_FOLDERS)}; and {', '.join(_MASK_FOLDERS)}"
        )
    by_stem = files_by_stem(masks, _MASK_SUFFIXES)
    return [(path, by_stem.get(stem)) for stem, path in files_by_stem(images).items()]


def _strays(folder: Path) -> list[str]:
    strays = []
    for part in split_folders(folder).values():
        images, masks = _folders(part)
        if images is not None and masks is not None:
            pictures = files_by_stem(images)
            strays += [
                f"mask {path} has no picture of the same name in {images}"
                for stem, path in files_by_stem(masks, _MASK_SUFFIXES).items()
                if stem not in pictures
            ]
    return strays


@dataclass(frozen=True)
class _Values:
    """What occurs in the masks of a folder.

    Attributes:
        numbers: all of them.
        palette: whether any mask has a palette.
    """

    numbers: frozenset[int]
    palette: bool


def _fingerprints(masks: Sequence[Path]) -> tuple[tuple[Path, int, int], ...]:
    states = ((path, path.stat()) for path in masks)
    return tuple((path, state.st_mtime_ns, state.st_size) for path, state in states)


@lru_cache(maxsize=4)
def _values_in(masks: tuple[tuple[Path, int, int], ...]) -> _Values:
    """Read every mask once; a run opens the same folder for each of its stages."""
    numbers: set[int] = set()
    palette = False
    for path, _, _ in masks:
        try:
            values, of_palette = read_ids(path)
        except EdgeheadsError:
            continue  # it is reported when its sample is read
        palette |= of_palette
        numbers.update(np.unique(values).tolist())
    return _Values(frozenset(numbers), palette)


def _look_binary(values: _Values) -> bool:
    if values.palette or not values.numbers or max(values.numbers) > _UNKNOWN:
        return False
    softened = any(128 <= number < _UNKNOWN for number in values.numbers)
    return softened or (_UNKNOWN in values.numbers and values.numbers <= {0, _UNKNOWN})


def _binary_names(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) == 1:
        return ("background", names[0])
    return names or ("background", "foreground")


def _numbered_names(values: _Values, folder: Path) -> tuple[str, ...]:
    classes = max(values.numbers - {_UNKNOWN}, default=-1) + 1
    if not 1 <= classes <= _MAX_CLASSES:
        found = f"numbers up to {classes - 1}" if classes > 0 else "no class number"
        raise EdgeheadsError(
            f"the masks in {folder} hold {found}, which says nothing of the classes; write their "
            f"names into {folder / 'labels.txt'}, one a line, the first for 0"
        )
    return tuple(f"class {number}" for number in range(classes))


def _load(image_path: Path, mask_path: Path | None, classes: int, binary: bool) -> Sample:
    if mask_path is None:
        raise EdgeheadsError(
            f"picture {image_path} has no mask of the same name; add it, or remove the picture"
        )
    complaints = Complaints(str(image_path))
    values, _ = read_ids(mask_path)
    if binary:
        semantic = (values >= 128).astype(np.int32)
    else:
        semantic = np.where(values == _UNKNOWN, IGNORED, values.astype(np.int32))
        _require_classes(semantic, classes, mask_path)
    height, width = semantic.shape
    image = read_labelled_picture(image_path, (height, width), complaints)
    semantic = fit_mask(semantic, image.shape[:2], str(mask_path), complaints)
    return Sample(image=image, name=str(image_path), semantic=semantic, problems=complaints.texts())


def _require_classes(semantic: NDArray[Any], classes: int, path: Path) -> None:
    if semantic.max(initial=IGNORED) >= classes:
        raise EdgeheadsError(
            f"mask {path} holds the class {int(semantic.max())}, expected 0 to {classes - 1}, "
            f"or {_UNKNOWN} for pixels that count for nothing"
        )
