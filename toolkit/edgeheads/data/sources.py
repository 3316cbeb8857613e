"""Where a recipe's samples come from: rendered scenes, or a folder of the user's."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgeheads.data.rgbd import RgbdFolder, find_rgbd_pairs
from edgeheads.data.sample import SampleSource
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError

__all__ = ["open_source", "split_items"]

_Item = TypeVar("_Item")


def open_source(
    data: Mapping[str, Any], split: str, *, size: tuple[int, int], seed: int
) -> SampleSource:
    """Return the samples of one split.

    Args:
        data: a recipe's `data` section as plain values.
        split: "train" or "test".
        size: (height, width) in pixels of scenes that are rendered; files keep their own.
        seed: of the rendered scenes.

    Raises:
        EdgeheadsError: a folder that is missing, empty, or too small to split.
    """
    if data["source"] == "synthetic":
        return SyntheticScenes(data[f"{split}_samples"], size, seed=seed, split=split)
    folder = Path(data["source"])
    if not folder.is_dir():
        raise EdgeheadsError(f"data folder {folder} does not exist; give one with --data DIR")
    if not any(folder.iterdir()):
        raise EdgeheadsError(f"data folder {folder} is empty")
    train, test = split_items(
        find_rgbd_pairs(folder), data["split"], data["test_fraction"], key=lambda pair: pair[0].stem
    )
    chosen = {"train": train, "test": test}[split]
    if not chosen:
        raise EdgeheadsError(
            f"{folder} has {len(train) + len(test)} samples, too few for a {split} split with "
            f"test_fraction {data['test_fraction']}"
        )
    return RgbdFolder(chosen, data["depth_unit"])


def split_items(
    items: list[_Item], method: str, test_fraction: float, *, key: Any
) -> tuple[list[_Item], list[_Item]]:
    """Divide items, in the order of their names, into (train, test).

    Args:
        items: in order.
        method: "tail": the last items are the test set. Neighbouring frames of a video show
            nearly the same scene, and this keeps them on one side. "hash": each item goes where
            a checksum of its name says, so that adding files moves none of the others.
        test_fraction: in (0, 1).
        key: item -> its name.
    """
    if method == "tail":
        cut = len(items) - round(len(items) * test_fraction)
        return items[:cut], items[cut:]
    buckets = [zlib.crc32(key(item).encode()) / 2**32 for item in items]
    return (
        [item for item, bucket in zip(items, buckets, strict=True) if bucket >= test_fraction],
        [item for item, bucket in zip(items, buckets, strict=True) if bucket < test_fraction],
    )
