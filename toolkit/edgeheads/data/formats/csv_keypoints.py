"""CSV keypoints: a table with a row for each picture, and columns for x and y of each point."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeheads.data.formats.labels import (
    Complaints,
    mirrored_pairs,
    read_labelled_picture,
    usable_keypoints,
)
from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    find_subfolder,
    list_files,
    path_inside,
    read_text,
    split_folders,
    split_of,
)
from edgeheads.data.images import IMAGE_SUFFIXES
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "read"]

EXPECTED = (
    "DIR/*.csv with a column of file names and columns NAME_x, NAME_y of pixels (or x0, y0; or 0, "
    "1, 2, 3 for x and y in turn), beside DIR/images"
)

_MAX_CSV_BYTES = 256_000_000
# The box around two points may be as thin as the line between them.
_LEAST_POINTS = 3

# The 68 landmarks of faces: Sagonas et al. 2013, "300 Faces in-the-Wild Challenge". Jaw, brows,
# nostrils, eyes, and lips, whose two sides change places in a mirror.
_FACE_68 = (
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)),
)

# What a column of a point is called: "nose_x", "nose.x", "nose x", "x_nose", "x12", "x_12".
_AXES = {"x": "x", "y": "y", "v": "v", "vis": "v", "visible": "v", "visibility": "v"}
_AXIS_LAST = re.compile(r"(.+)[_.\- ](x|y|v|vis|visible|visibility)", re.IGNORECASE)
_AXIS_FIRST = re.compile(r"(x|y|v|vis|visible|visibility)(?:[_.\- ](.+)|(\d+))", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """Where in a row to look.

    Attributes:
        names: of the points, in the order of their columns.
        x: column of each.
        y: column of each.
        v: column of each, -1 where nothing says whether it is seen.
        file: the column of the file name.
    """

    names: tuple[str, ...]
    x: tuple[int, ...]
    y: tuple[int, ...]
    v: tuple[int, ...]
    file: int


def detect(folder: Path) -> bool:
    """Look for a CSV file whose header has columns of points."""
    for part in split_folders(folder).values():
        for path in list_files(part, (".csv",)):
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                header = next(csv.reader([file.readline(1_000_000)]), [])
            if _find_columns(header, ()) is not None:
                return True
    return False


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the rows, in the order of their file names; the first row of a picture counts.

    A visibility column says 0 for not labelled, 1 for hidden, 2 for visible; an empty cell is not
    labelled. Names with "left" and "right" give the pairs that a mirror swaps; 68 points without
    such names are the landmarks of a face. Where every number of a table is whole, they count
    pixels, and half a pixel is added to point at their centres.

    Raises:
        EdgeheadsError: there is no table of points, or there are several for one split.
    """
    tables: dict[str, tuple[Path, Path]] = {}
    for split, part in split_folders(folder).items():
        for path in list_files(part, (".csv",)):
            key = split or split_of(path.stem)
            if key in tables:
                raise EdgeheadsError(
                    f"{tables[key][0]} and {path} are two tables for one split; name them "
                    "train.csv and test.csv, or keep one"
                )
            tables[key] = path, part
    if not tables:
        raise EdgeheadsError(f"{folder} holds no table of keypoints; expected {EXPECTED}")
    splits, problems = {}, []
    columns = None
    for key, (path, part) in tables.items():
        own, rows = _read_table(path)
        if columns is not None and own.names != columns.names:
            raise EdgeheadsError(f"{path} has other points than the table beside it")
        columns = own
        splits[key], repeated = _entries(path, part, folder, own, rows)
        problems += repeated
    assert columns is not None  # noqa: S101 - there is a table
    pairs = mirrored_pairs(columns.names)
    if not pairs and len(columns.names) == 68:
        pairs = _FACE_68
    return Listing(
        splits, LabelNames(keypoints=columns.names, mirrored_keypoints=pairs), tuple(problems)
    )


def _read_table(path: Path) -> tuple[_Columns, list[list[str]]]:
    lines = read_text(path, _MAX_CSV_BYTES).splitlines()
    try:
        rows = [row for row in csv.reader(lines) if row]
    except csv.Error as error:
        raise EdgeheadsError(f"{path} cannot be read as CSV ({error})") from None
    columns = _find_columns(rows[0], rows[1] if len(rows) > 1 else ()) if rows else None
    if columns is None:
        raise EdgeheadsError(
            f"{path} has no columns of points in its header {rows[:1]!s:.80}; expected {EXPECTED}"
        )
    return columns, rows[1:]


def _find_columns(header: Sequence[str], first: Sequence[str]) -> _Columns | None:
    """Return where things are, or None for a table of something else.

    Args:
        header: names of the columns.
        first: the first row, in which a file name ends like one.
    """
    plain = [cell.strip() for cell in header]
    numbered = [index for index, cell in enumerate(plain) if cell.isdecimal()]
    points: dict[str, dict[str, int]] = {}
    if numbered and len(numbered) % 2 == 0 and len(numbered) >= len(plain) - 1:
        for number, index in enumerate(numbered):
            points.setdefault(str(number // 2), {})["xy"[number % 2]] = index
    else:
        for index, cell in enumerate(plain):
            if match := _AXIS_LAST.fullmatch(cell):
                name, axis = match[1], match[2]
            elif match := _AXIS_FIRST.fullmatch(cell):
                name, axis = match[2] or match[3], match[1]
            else:
                continue
            points.setdefault(name, {})[_AXES[axis.lower()]] = index
    points = {name: where for name, where in points.items() if {"x", "y"} <= set(where)}
    used = {index for where in points.values() for index in where.values()}
    others = [index for index in range(len(plain)) if index not in used]
    if not points or not others:
        return None
    files = [i for i in others if i < len(first) and first[i].lower().endswith(IMAGE_SUFFIXES)]
    return _Columns(
        tuple(points),
        tuple(where["x"] for where in points.values()),
        tuple(where["y"] for where in points.values()),
        tuple(where.get("v", -1) for where in points.values()),
        (files or others)[0],
    )


def _entries(
    path: Path, part: Path, root: Path, columns: _Columns, rows: list[list[str]]
) -> tuple[list[Entry], list[str]]:
    folder = find_subfolder(part, IMAGE_FOLDERS) or part
    by_name: dict[str, tuple[int, list[str]]] = {}
    problems = []
    for number, row in enumerate(rows, start=2):
        name = row[columns.file].strip() if columns.file < len(row) else ""
        if name in by_name:
            problems.append(
                f"{path} labels {name!r} in rows {by_name[name][0]} and {number}; the first counts"
            )
            continue
        by_name[name] = number, row
    whole = _all_whole(rows, columns)
    return [
        Entry(
            f"{part.relative_to(root).as_posix()}/{name}",
            partial(_load, folder, name, f"{path} row {number}", row, columns, whole),
        )
        for name, (number, row) in sorted(by_name.items())
    ], problems


def _all_whole(rows: list[list[str]], columns: _Columns) -> bool:
    wanted = {*columns.x, *columns.y}
    for row in rows:
        for index, cell in enumerate(row):
            if index in wanted and not re.fullmatch(r"\s*-?\d*(\.0*)?\s*", cell):
                return False
    return True


def _load(
    folder: Path, name: str, where: str, row: list[str], columns: _Columns, whole: bool
) -> Sample:
    path = path_inside(folder, name, Path(where))
    points = _points(row, columns, where)
    if whole:
        points[:, :2] += 0.5
    complaints = Complaints(str(path))
    image = read_labelled_picture(path, None, complaints)
    keypoints = usable_keypoints(points, image.shape[:2], complaints)
    return Sample(
        image=image,
        name=str(path),
        keypoints=keypoints,
        keypoint_scale=_scale(keypoints),
        problems=complaints.texts(),
    )


def _scale(keypoints: NDArray[np.float32]) -> float | None:
    """Return the square root of the area of the box around the labelled points, if it has one.

    The points are those of one object, and there is no other word on its size.
    """
    labelled = keypoints[keypoints[:, 2] > 0, :2]
    if len(labelled) < _LEAST_POINTS:
        return None
    width, height = (float(side) for side in np.ptp(labelled, axis=0))
    return math.sqrt(width * height) or None


def _points(row: list[str], columns: _Columns, where: str) -> NDArray[np.float64]:
    """Return [K, 3]: x, y, visibility; NaN where a cell is empty."""

    def number(index: int) -> float:
        if index < 0:
            return 2.0
        cell = row[index].strip()
        return float(cell) if cell else float("nan")

    try:
        return np.array(
            [
                (number(x), number(y), number(v))
                for x, y, v in zip(columns.x, columns.y, columns.v, strict=True)
            ]
        )
    except (ValueError, IndexError):
        raise EdgeheadsError(
            f"{where} must have a number, or nothing, for each of {len(columns.names)} points, "
            f"received {len(row)} cells: {row!s:.80}"
        ) from None
