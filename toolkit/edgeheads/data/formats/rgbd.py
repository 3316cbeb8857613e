"""RGB-D folders: colour pictures beside depth maps of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.listing import (
    Entry,
    Listing,
    ReadOptions,
    files_by_stem,
    find_subfolder,
    split_folders,
)
from edgeheads.data.images import IMAGE_SUFFIXES, open_image, read_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read", "read_depth"]

_COLOR_FOLDERS = ("color", "colour", "rgb", "images", "image")
_DEPTH_FOLDERS = ("depth", "depths")
_DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
# Sensors write these where they have no reading: no return, and out of range.
_NO_READING = (0, 65535)


EXPECTED = "DIR/color/*.jpg (or rgb, images) beside DIR/depth/*.png (or .tif, .npy)"


def detect(folder: Path) -> bool:
    """Look for a folder of colour pictures and one of depth maps."""
    return all(
        find_subfolder(one, _COLOR_FOLDERS) and find_subfolder(one, _DEPTH_FOLDERS)
        for one in split_folders(folder).values()
    )


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the pictures, each with the depth map of its name.

    Raises:
        EdgeheadsError: there is no folder of pictures or of depth maps, or no picture.
    """
    splits = {
        split: _entries(folder, part, options.depth_unit)
        for split, part in split_folders(folder).items()
    }
    return Listing(splits, LabelNames())


def _entries(folder: Path, part: Path, depth_unit: float) -> list[Entry]:
    color_folder = _subfolder(part, _COLOR_FOLDERS, "pictures")
    depth_folder = _subfolder(part, _DEPTH_FOLDERS, "depth maps")
    color, depth = files_by_stem(color_folder), files_by_stem(depth_folder, _DEPTH_SUFFIXES)
    if not color:
        raise EdgeheadsError(
            f"{color_folder} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)} files"
        )
    return [
        Entry(
            path.relative_to(folder).as_posix(),
            partial(_load, path, depth.get(stem), depth_folder, depth_unit),
        )
        for stem, path in color.items()
    ]


def _load(
    color_path: Path, depth_path: Path | None, depth_folder: Path, depth_unit: float
) -> Sample:
    if depth_path is None:
        raise EdgeheadsError(
            f"picture {color_path} has no depth map of the same name in {depth_folder}; "
            "add the depth map, or remove the picture"
        )
    image = read_rgb(color_path)
    depth = read_depth(depth_path, depth_unit)
    if depth.shape != image.shape[:2]:
        raise EdgeheadsError(
            f"depth map {depth_path} must be as large as its picture {color_path}, "
            f"expected {image.shape[1]}x{image.shape[0]}, "
            f"received {depth.shape[1]}x{depth.shape[0]}; register the depth to the colour "
            "camera, or remove the pair"
        )
    return Sample(image=image, name=str(color_path), depth=depth)


def read_depth(path: Path, depth_unit: float) -> NDArray[np.float32]:
    """Return a depth map [H, W] in metres, 0 where there is no reading.

    0 and 65535 of an integer map, and anything negative, infinite or NaN, are no readings.
    """
    if path.suffix == ".npy":
        try:
            raw = np.load(path, allow_pickle=False)
            if not isinstance(raw, np.ndarray):
                raise ValueError("it is an archive of arrays")
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise EdgeheadsError(f"depth map {path} cannot be read ({error})") from None
    else:
        raw = np.asarray(open_image(path))
    if raw.ndim != 2:
        raise EdgeheadsError(
            f"depth map {path} must have one channel, received shape {raw.shape}; "
            "a coloured rendering of depth holds no metres"
        )
    if raw.dtype == np.uint8:
        raise EdgeheadsError(
            f"depth map {path} has 8 bits a pixel; expected 16-bit integers or float metres"
        )
    if np.issubdtype(raw.dtype, np.integer):
        metres = np.where(np.isin(raw, _NO_READING), 0, raw).astype(np.float32) * depth_unit
    else:
        metres = raw.astype(np.float32)
    metres = np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32)
    if not metres.any():
        raise EdgeheadsError(
            f"depth map {path} has no reading: every pixel is 0, 65535, NaN or negative; remove it"
        )
    return metres


def _subfolder(folder: Path, names: Sequence[str], content: str) -> Path:
    found = find_subfolder(folder, names)
    if found is None:
        raise EdgeheadsError(
            f"{folder} has no folder of {content}; expected one called {' or '.join(names)}"
        )
    return found
