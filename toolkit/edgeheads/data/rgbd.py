"""RGB-D folders: colour pictures beside depth maps of the same name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.images import IMAGE_SUFFIXES, open_image, read_rgb
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["RgbdFolder", "find_rgbd_pairs", "read_depth"]

_COLOR_FOLDERS = ("color", "colour", "rgb", "images", "image")
_DEPTH_FOLDERS = ("depth", "depths")
_DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
# Sensors write these where they have no reading: no return, and out of range.
_NO_READING = (0, 65535)


class RgbdFolder:
    """Pairs of a colour picture and its depth map, as samples.

    Args:
        pairs: (colour, depth) paths; see `find_rgbd_pairs`.
        depth_unit: metres of one step of an integer depth map; float maps are in metres.
    """

    def __init__(self, pairs: Sequence[tuple[Path, Path]], depth_unit: float = 0.001) -> None:
        self._pairs = list(pairs)
        self._depth_unit = depth_unit

    @property
    def names(self) -> LabelNames:
        """Depth has none."""
        return LabelNames()

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        """Read one pair.

        Raises:
            EdgeheadsError: a file that cannot be read, two sizes that differ, or a depth map
                without a single reading; the text names the path.
        """
        color_path, depth_path = self._pairs[index]
        image = read_rgb(color_path)
        depth = read_depth(depth_path, self._depth_unit)
        if depth.shape != image.shape[:2]:
            raise EdgeheadsError(
                f"depth map {depth_path} must be as large as its picture {color_path}, "
                f"expected {image.shape[1]}x{image.shape[0]}, "
                f"received {depth.shape[1]}x{depth.shape[0]}; register the depth to the colour "
                "camera, or remove the pair"
            )
        return Sample(image=image, name=str(color_path), depth=depth)

    def __iter__(self) -> Iterator[Sample]:
        """Read the pairs in order."""
        return (self[index] for index in range(len(self)))


def find_rgbd_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the (colour, depth) paths of a folder, in the order of their names.

    Raises:
        EdgeheadsError: the folder has no colour or depth folder, no pair, or a picture without a
            depth map.
    """
    color_folder = _subfolder(folder, _COLOR_FOLDERS, "pictures")
    depth_folder = _subfolder(folder, _DEPTH_FOLDERS, "depth maps")
    color = _by_stem(color_folder, IMAGE_SUFFIXES)
    depth = _by_stem(depth_folder, _DEPTH_SUFFIXES)
    if not color:
        raise EdgeheadsError(
            f"{color_folder} holds no pictures; expected {', '.join(IMAGE_SUFFIXES)} files"
        )
    unpaired = sorted(set(color) - set(depth))
    if unpaired:
        raise EdgeheadsError(
            f"{len(unpaired)} of {len(color)} pictures in {color_folder} have no depth map of the "
            f"same name in {depth_folder}, the first is {color[unpaired[0]].name}; "
            "add the depth maps, or remove the pictures"
        )
    return [(color[stem], depth[stem]) for stem in sorted(color)]


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
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise EdgeheadsError(
        f"{folder} has no folder of {content}; expected one called {' or '.join(names)}"
    )


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and path.is_file()
    }
