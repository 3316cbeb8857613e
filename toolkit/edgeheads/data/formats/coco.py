"""COCO JSON: boxes, masks and keypoints of every object, in one file for each split."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from edgeheads.data.formats.coco_objects import load_crop, load_image
from edgeheads.data.formats.labels import mirrored_pairs
from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    list_files,
    path_inside,
    read_text,
    split_of,
)
from edgeheads.data.sample import LabelNames
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read"]

EXPECTED = (
    "DIR/annotations/*.json (or DIR/*.json, DIR/train/*.json) with images, annotations and "
    "categories, beside folders of pictures"
)

_MAX_JSON_BYTES = 1_000_000_000
_LOOKED_AT_BYTES = 100_000
_KEYS = re.compile(r'"(images|annotations|categories)"\s*:\s*\[')
# Of the files that COCO itself has for one split, those without boxes.
_OTHER_FILES = ("captions", "image_info", "panoptic", "stuff")


def detect(folder: Path) -> bool:
    """Look for a JSON file that begins or ends like COCO's."""
    return any(_looks_like_coco(path) for path in _json_files(folder))


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the pictures, in the order of their names; the JSON files are read whole.

    A file belongs to the split that its name or its folder's says. Of several for one split,
    "person_keypoints_*" is taken for `options.keypoint_crops`, else "instances_*". With
    `options.keypoint_crops` there is one sample for each object with keypoints, cut out of its
    picture.

    Raises:
        EdgeheadsError: no file, several for one split, or one that is not COCO JSON.
    """
    files = _choose_files(folder, options)
    contents = {split: _parse(path, *_state(path)) for split, path in files.items()}
    problems: list[str] = []
    classes = _class_names(contents.values())
    points: tuple[str, ...] = ()
    if options.keypoint_crops:
        points = _keypoint_names(contents.values(), files)
    splits = {}
    for split, path in files.items():
        pictures = _Pictures(folder, path, split)
        splits[split] = _entries(contents[split], pictures, classes, points, problems)
    if points:
        names = LabelNames(keypoints=points, mirrored_keypoints=mirrored_pairs(points))
    else:
        names = LabelNames(classes=classes)
    return Listing(splits, names, tuple(problems))


def _json_files(folder: Path) -> list[Path]:
    places = [folder, folder / "annotations"]
    places += [path for path in sorted(folder.iterdir()) if path.is_dir() and split_of(path.name)]
    return [path for place in places if place.is_dir() for path in list_files(place, (".json",))]


def _looks_like_coco(path: Path) -> bool:
    with path.open("rb") as file:
        text = file.read(_LOOKED_AT_BYTES)
        file.seek(max(0, path.stat().st_size - _LOOKED_AT_BYTES))
        text += file.read(_LOOKED_AT_BYTES)
    return _KEYS.search(text.decode("utf-8", errors="replace")) is not None


def _choose_files(folder: Path, options: ReadOptions) -> dict[str, Path]:
    by_split: dict[str, list[Path]] = defaultdict(list)
    for path in _json_files(folder):
        if path.name.startswith(_OTHER_FILES) or not _looks_like_coco(path):
            continue
        inner = path.parent not in (folder, folder / "annotations")
        by_split[split_of(path.stem) or (split_of(path.parent.name) if inner else "")].append(path)
    if not by_split:
        raise EdgeheadsError(f"{folder} has no COCO JSON file; expected {EXPECTED}")
    wanted = "keypoints" if options.keypoint_crops else "instances"
    chosen = {}
    for split, paths in by_split.items():
        preferred = [path for path in paths if wanted in path.stem] or paths
        if len(preferred) > 1:
            raise EdgeheadsError(
                f"{preferred[0]} and {preferred[1].name} are both for "
                f"{f'the split {split!r}' if split else 'all pictures'}; keep one, or name them "
                "train.json and val.json"
            )
        chosen[split] = preferred[0]
    return chosen


@dataclass(frozen=True)
class _Content:
    """A JSON file, as far as it is used.

    Attributes:
        path: of the file.
        images: its records.
        annotations: its records, in order, by the image's id.
        categories: its records.
    """

    path: Path
    images: Sequence[Mapping[str, Any]]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    categories: Sequence[Mapping[str, Any]]


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)
def _parse(path: Path, modified: int, size: int) -> _Content:
    """Read a file once; a run opens the same data for each of its stages."""
    try:
        content = json.loads(read_text(path, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise EdgeheadsError(f"{path} cannot be read as JSON ({error!s:.200})") from None
    lists = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise EdgeheadsError(
                f"{path} must have a list of records {key!r}, received {value!r:.60}; "
                f"expected {EXPECTED}"
            )
        lists[key] = value
    annotations = defaultdict(list)
    for record in lists["annotations"]:
        annotations[_key(record.get("image_id"))].append(record)
    return _Content(path, lists["images"], dict(annotations), lists["categories"])


def _key(identity: object) -> object:
    """Return an id as a key: JSON may have written any value there, a list among them."""
    return identity if isinstance(identity, int | str) else repr(identity)


def _class_names(contents: Iterable[_Content]) -> tuple[str, ...]:
    """Return the names of all categories: in the order of their ids, files in turn."""
    names: dict[str, None] = {}
    for content in contents:
        records = sorted(content.categories, key=lambda one: str(one.get("id")).zfill(20))
        names.update((str(one.get("name", one.get("id"))), None) for one in records)
    if not names:
        raise EdgeheadsError("COCO JSON without categories; name the classes there")
    return tuple(names)


def _keypoint_names(contents: Iterable[_Content], files: Mapping[str, Path]) -> tuple[str, ...]:
    named = {
        tuple(str(point) for point in category["keypoints"])
        for content in contents
        for category in content.categories
        if isinstance(category.get("keypoints"), list) and category["keypoints"]
    }
    if len(named) != 1:
        raise EdgeheadsError(
            f"{', '.join(map(str, files.values()))} name {len(named)} sets of keypoints in their "
            "categories, expected one; without keypoints, set data.keypoint_crops to false"
        )
    return named.pop()


class _Pictures:
    """Finds the pictures of one JSON file.

    Args:
        folder: of the data.
        json_path: the file.
        split: that it is for.
    """

    def __init__(self, folder: Path, json_path: Path, split: str) -> None:
        self._folder = folder
        self._json_path = json_path
        pictures = [folder / name for name in IMAGE_FOLDERS]
        inner = [
            path
            for place in (folder, *pictures)
            if split and place.is_dir()
            for path in sorted(place.iterdir())
            if path.is_dir() and split_of(path.name) == split
        ]
        places = [*inner, json_path.parent, *pictures, folder]
        self._places = [place for place in places if place.is_dir()]

    def find(self, name: object) -> Path:
        """Return where a picture is, or would be."""
        paths = [path_inside(place, name, self._json_path) for place in self._places]
        return next((path for path in paths if path.is_file()), paths[0])

    def short(self, path: Path) -> str:
        """Return a path relative to the data."""
        return path.relative_to(self._folder).as_posix()


def _entries(
    content: _Content,
    pictures: _Pictures,
    classes: tuple[str, ...],
    points: tuple[str, ...],
    problems: list[str],
) -> list[Entry]:
    by_category: dict[Any, int] = {}
    for one in content.categories:
        if _key(one.get("id")) in by_category:
            problems.append(
                f"{content.path} has two categories of id {one.get('id')!r}; the first counts"
            )
            continue
        by_category[_key(one.get("id"))] = classes.index(str(one.get("name", one.get("id"))))
    with_masks = any(
        one.get("segmentation") for part in content.annotations.values() for one in part
    )
    entries, seen = [], set()
    for record in content.images:
        identity = _key(record.get("id"))
        if identity in seen:
            problems.append(
                f"{content.path} has two images of id {record.get('id')!r}; the first counts"
            )
            continue
        seen.add(identity)
        try:
            path = pictures.find(record.get("file_name"))
        except EdgeheadsError as error:
            problems.append(str(error))
            continue
        labels = content.annotations.get(identity, ())
        name = pictures.short(path)
        if not points:
            load = partial(load_image, path, record, labels, by_category, with_masks)
            entries.append(Entry(name, load))
            continue
        for label in labels:
            if (
                label.get("num_keypoints", 1)
                and label.get("keypoints")
                and not label.get("iscrowd")
            ):
                load = partial(load_crop, path, record, label, len(points))
                entries.append(Entry(f"{name} {label.get('id')}", load))
    lost = set(content.annotations) - seen
    if lost:
        problems.append(
            f"{content.path} has annotations of {len(lost)} images that it does not list, "
            f"the first of image id {min(lost, key=str)!r}"
        )
    return sorted(entries, key=lambda entry: entry.name)
