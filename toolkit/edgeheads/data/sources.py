"""Where a recipe's samples come from: rendered scenes, a folder of the user's, or TFDS."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeheads.data.formats import find_format, get_format
from edgeheads.data.formats.listing import Entry, Listing, ReadOptions
from edgeheads.data.sample import LabelNames, Sample, SampleSource
from edgeheads.data.synthetic import RENDERED
from edgeheads.errors import EdgeheadsError

__all__ = [
    "Division",
    "ListedSamples",
    "divide",
    "find_source_format",
    "list_source",
    "open_source",
    "split_items",
]

_TFDS = "tfds:"

_Item = TypeVar("_Item")


class ListedSamples:
    """Samples that are read when they are asked for.

    Args:
        entries: one for each sample.
        names: of the labels.
        problems: of the source itself, a sentence each.
    """

    def __init__(
        self, entries: Sequence[Entry], names: LabelNames, problems: Sequence[str] = ()
    ) -> None:
        self._entries = list(entries)
        self._names = names
        self.problems = tuple(problems)

    @property
    def names(self) -> LabelNames:
        """What the numbers in the labels stand for."""
        return self._names

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            EdgeheadsError: it cannot be read; the text names the path.
        """
        return self._entries[index].load()

    def __iter__(self) -> Iterator[Sample]:
        """Read the samples in order."""
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class Division:
    """How a listing is divided.

    Attributes:
        train: what to learn from.
        test: what to evaluate on.
        rule: what decided, for people.
        problems: entries that were on both sides.
    """

    train: list[Entry]
    test: list[Entry]
    rule: str
    problems: tuple[str, ...] = ()


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
        EdgeheadsError: a folder that is missing, empty, in no known format, or too small to split.
    """
    if data["source"] in RENDERED:
        return RENDERED[data["source"]](data[f"{split}_samples"], size, seed=seed, split=split)
    listing = list_source(data)
    division = divide(listing, data["split"], data["test_fraction"])
    problems = (*listing.problems, *division.problems)
    chosen = {"train": division.train, "test": division.test}[split]
    if not chosen:
        total = len(division.train) + len(division.test)
        raise EdgeheadsError(
            f"{data['source']} has {total} samples, too few for a {split} split: {division.rule}"
            + (f"; {problems[0]}" if problems else "")
        )
    return ListedSamples(chosen, listing.names, problems)


def list_source(data: Mapping[str, Any]) -> Listing:
    """List what a folder or a TFDS name holds.

    Args:
        data: a recipe's `data` section as plain values; its source is not rendered.

    Raises:
        EdgeheadsError: see `open_source`.
    """
    options = ReadOptions(data["depth_unit"], data["keypoint_crops"])
    if data["source"].startswith(_TFDS):
        from edgeheads.data.formats import tfds

        return tfds.read(data["source"].removeprefix(_TFDS))
    return get_format(find_source_format(data)).read(Path(data["source"]), options)


def find_source_format(data: Mapping[str, Any]) -> str:
    """Return the format of a recipe's data: the one it names, or the one its folder looks like.

    Raises:
        EdgeheadsError: see `open_source`.
    """
    source = data["source"]
    if source in RENDERED or source.startswith(_TFDS):
        return source.partition(":")[0]
    folder = Path(source)
    if not folder.is_dir():
        raise EdgeheadsError(f"data folder {folder} does not exist; give one with --data DIR")
    if not any(folder.iterdir()):
        raise EdgeheadsError(f"data folder {folder} is empty")
    return find_format(folder) if data["format"] == "auto" else str(data["format"])


def divide(listing: Listing, method: str, test_fraction: float) -> Division:
    """Divide a listing into what to learn from and what to evaluate on.

    Splits that the data itself declares win. The test set is then its "test", and "val" is
    learned from as well; where there is no "test", "val" is the test set. Data that declares
    none, or only a "train", is divided by `split_items`, each group of entries on its own.

    Args:
        listing: of the data.
        method: see `split_items`.
        test_fraction: see `split_items`.
    """
    splits = {name: list(entries) for name, entries in listing.splits.items() if entries}
    if "test" in splits or "val" in splits:
        test_name = "test" if "test" in splits else "val"
        test = splits.pop(test_name)
        rule = f"the data's own splits, {' and '.join(splits) or 'none'} against {test_name}"
        return _without_leaks([one for part in splits.values() for one in part], test, rule)
    entries = [one for part in splits.values() for one in part]
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    tests: set[int] = set()
    for group in groups.values():
        _, held = split_items(group, method, test_fraction, key=lambda entry: entry.name)
        tests.update(id(entry) for entry in held)
    return Division(
        [entry for entry in entries if id(entry) not in tests],
        [entry for entry in entries if id(entry) in tests],
        f"data.split {method}, data.test_fraction {test_fraction:g}"
        + (", in each class" if len(groups) > 1 else ""),
    )


def _without_leaks(train: list[Entry], test: list[Entry], rule: str) -> Division:
    """Take out of the training set what the test set has too, and repetitions."""
    seen = {entry.name for entry in test}
    kept, problems = [], []
    for entry in train:
        if entry.name in seen:
            problems.append(f"{entry.name} is listed in two splits, or twice; it counts once")
            continue
        seen.add(entry.name)
        kept.append(entry)
    return Division(kept, test, rule, tuple(problems))


def split_items(
    items: list[_Item], method: str, test_fraction: float, *, key: Callable[[_Item], str]
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
