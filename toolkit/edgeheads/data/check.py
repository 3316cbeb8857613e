"""What is in a set of labelled images: counts, sizes, and all that is wrong, read once through."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeheads.data.contact_sheet import Cell
from edgeheads.data.images import resize_rgb
from edgeheads.data.reading import Skipped, read_samples
from edgeheads.data.sample import LabelNames, Sample, SampleSource
from edgeheads.data.sources import (
    ListedSamples,
    divide,
    find_source_format,
    list_source,
    open_source,
)
from edgeheads.data.synthetic import RENDERED
from edgeheads.errors import EdgeheadsError
from edgeheads.progress import Progress, SilentProgress
from edgeheads.tasks import TASKS, TaskType, get_task
from edgeheads.tasks.base import Task

__all__ = ["DataReport", "check_data"]

_SPLITS = ("train", "test")
# The longer side of a picture on the contact sheet, in pixels.
_CELL_PX = 208
_SCENE_SIZE = (128, 128)


@dataclass
class DataReport:
    """What a check found.

    Attributes:
        source: what was read.
        format: its format.
        splits: {"train" and "test": samples that are listed}.
        rule: what divides the samples.
        usable: samples that can be read.
        widths: of each usable image, pixels.
        heights: of each usable image, pixels.
        classes: {class: images of it, or objects where images have them}.
        pixels: {class of pixels: how many}.
        keypoints: {keypoint: images in which it is labelled}.
        mirrored: pairs of keypoints that change places in a mirror.
        tasks: {task: samples whose labels serve it}, those with none left out.
        bad: why samples cannot be used, a text each.
        problems: labels that were mended or left out, and pictures that are there twice.
        cells: drawn samples for the contact sheet.
    """

    source: str
    format: str
    splits: dict[str, int] = field(default_factory=dict)
    rule: str = ""
    usable: int = 0
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    classes: Counter[str] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)
    keypoints: Counter[str] = field(default_factory=Counter)
    mirrored: list[tuple[str, str]] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """Return plain JSON values, without the pictures."""
        return {
            "source": self.source,
            "format": self.format,
            "splits": self.splits,
            "split_rule": self.rule,
            "usable": self.usable,
            "image_width_px": spread(self.widths),
            "image_height_px": spread(self.heights),
            "classes": dict(self.classes),
            "pixels": dict(self.pixels),
            "keypoints": dict(self.keypoints),
            "mirrored_keypoints": self.mirrored,
            "tasks": dict(self.tasks),
            "bad": self.bad,
            "problems": self.problems,
        }


def spread(values: list[int]) -> dict[str, float] | None:
    """Return {"min", "median", "max"}, or None of nothing."""
    if not values:
        return None
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def check_data(
    data: Mapping[str, Any], *, drawn: int = 12, progress: Progress | None = None
) -> DataReport:
    """Read every sample of both splits, and report.

    Args:
        data: a recipe's `data` section as plain values; "strict" is of no account here.
        drawn: samples to draw, evenly spread.
        progress: where to report.

    Raises:
        EdgeheadsError: nothing can be listed; see `open_source`.
    """
    report = DataReport(data["source"], find_source_format(data))
    sources = _open_splits(data, report)
    total = sum(report.splits.values())
    wanted = np.linspace(0, total - 1, min(drawn, total)).round()
    pictures: dict[bytes, str] = {}
    with (progress or SilentProgress()).step("Reading images", total) as step:
        for source in sources:
            names = source.names
            pairs = names.mirrored_keypoints
            report.mirrored = [(names.keypoints[a], names.keypoints[b]) for a, b in pairs]
            rooms = _serving_rooms(names)
            for sample in _usable(source, report):
                _count(sample, names, report)
                _find_twin(sample, pictures, report)
                served = [room for room in rooms if room.accepts(sample)]
                report.tasks.update(room.type.value for room in served)
                # Where a sample that was to be drawn is bad, the next good one is.
                if (wanted < report.usable + len(report.bad)).sum() > len(report.cells):
                    report.cells.append(_draw(sample, names, served, report.source))
                step.advance()
    return report


def _open_splits(data: Mapping[str, Any], report: DataReport) -> list[SampleSource]:
    """Open the splits that have samples: of a check, unlike a training, one may have none."""
    if data["source"] in RENDERED:
        report.rule = "rendered, no scene in common"
        report.splits = {split: data[f"{split}_samples"] for split in _SPLITS}
        return [open_source(data, split, size=_SCENE_SIZE, seed=0) for split in _SPLITS]
    listing = list_source(data)
    division = divide(listing, data["split"], data["test_fraction"])
    report.rule = division.rule
    report.splits = {"train": len(division.train), "test": len(division.test)}
    if not any(report.splits.values()):
        raise EdgeheadsError(f"{data['source']} holds no samples of the format {report.format}")
    report.problems += [*listing.problems, *division.problems]
    splits = (division.train, division.test)
    return [ListedSamples(entries, listing.names) for entries in splits if entries]


def _usable(source: SampleSource, report: DataReport) -> Iterator[Sample]:
    skipped = Skipped(report.bad, report.problems)
    try:
        for sample in read_samples(source, lambda _: None, skipped):
            report.usable += 1
            yield sample
    except EdgeheadsError:
        # Not one sample of the split can be used, which the report says.
        pass


def _serving_rooms(names: LabelNames) -> list[Task]:
    """Return the tasks that the kinds of label allow, but for those made of others."""
    rooms = []
    for task in TASKS:
        if task is TaskType.MULTI_TASK:
            continue
        room = get_task(task)
        try:
            room.head_options(names)
        except EdgeheadsError:
            continue
        rooms.append(room)
    return rooms


def _count(sample: Sample, names: LabelNames, report: DataReport) -> None:
    height, width = sample.image.shape[:2]
    report.widths.append(width)
    report.heights.append(height)
    if sample.label is not None:
        report.classes[names.classes[sample.label]] += 1
    if sample.objects is not None:
        report.classes.update(names.classes[one] for one in sample.objects.classes)
    if sample.semantic is not None:
        known = sample.semantic[sample.semantic >= 0]
        counts = np.bincount(known, minlength=len(names.semantic)).tolist()
        report.pixels.update(dict(zip(names.semantic, counts, strict=True)))
    if sample.keypoints is not None:
        seen = np.flatnonzero(sample.keypoints[:, 2] > 0)
        report.keypoints.update(names.keypoints[one] for one in seen)


def _find_twin(sample: Sample, pictures: dict[bytes, str], report: DataReport) -> None:
    digest = hashlib.blake2b(sample.image.tobytes(), digest_size=16)
    digest.update(repr(sample.image.shape).encode())
    first = pictures.setdefault(digest.digest(), sample.name)
    if first != sample.name:
        report.problems.append(f"{sample.name}: the same picture as {first}")


def _draw(sample: Sample, names: LabelNames, rooms: list[Task], source: str) -> Cell:
    shrink = _CELL_PX / max(sample.image.shape[:2])
    height, width = (max(1, round(side * shrink)) for side in sample.image.shape[:2])
    shown = resize_rgb(sample.image, (height, width))
    panels = {"image": shown}
    for room in rooms:
        panels[room.type.value] = room.draw_label(shown, sample, names)
    return Cell(sample.name.removeprefix(source).lstrip("/"), panels)
