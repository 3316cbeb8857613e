"""What calibration images show of themselves, whatever the model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgeheads.tasks.base import Array

__all__ = ["Finding", "Seen", "coverage", "look", "normalisation", "sound", "telling_images"]

Severity = Literal["error", "warning", "note"]

# From so many on, the ranges of two halves rarely differ by more than a few percent.
_ENOUGH = 32
_MANY_DUPLICATES = 0.1
# Of the width that the model was trained with: more outside is another normalisation, and less
# than so much of it inside may be one; no pictures are as dark as the least.
_OUTSIDE = 0.02
_COVERED = 0.55
_LEAST_COVERED = 0.05
_LISTED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: "error": a file would be worth nothing; "warning": it would be worse than it
            could be; "note": all is well, or nobody can tell.
        check: what was looked at.
        text: what was found.
        advice: what to do; empty for a note.
    """

    severity: Severity
    check: str
    text: str
    advice: str = ""


@dataclass
class Seen:
    """What `look` saw; `telling` counts different images of more than one colour."""

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    other_shapes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)
    constant: list[int] = field(default_factory=list)
    hashes: Counter[bytes] = field(default_factory=Counter)
    telling: int = 0


def look(images: Iterable[Array], shape: tuple[int, ...]) -> Seen:
    """Look at each image, which should be of `shape`, once; a hash of each is kept."""
    seen = Seen()
    for index, image in enumerate(images):
        seen.count += 1
        if image.shape != shape:
            seen.other_shapes.append((index, image.shape))
        elif not np.isfinite(image).all():
            seen.not_finite.append(index)
        else:
            key = _hash(image)
            if _is_constant(image):
                seen.constant.append(index)
            elif key not in seen.hashes:
                seen.telling += 1
            seen.low, seen.high = (
                min(seen.low, float(image.min())),
                max(seen.high, float(image.max())),
            )
            seen.hashes[key] += 1
    return seen


def telling_images(images: Iterable[Array]) -> Iterator[Array]:
    """Yield the images that are of more than one colour, each once."""
    known = set()
    for image in images:
        key = _hash(image)
        if key not in known and not _is_constant(image):
            known.add(key)
            yield image


def _is_constant(image: Array) -> bool:
    """Tell whether an image [1, H, W, C] is of one colour, which need not be grey."""
    return bool((image == image[:, :1, :1]).all())


def _hash(image: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()


def sound(seen: Seen, shape: tuple[int, ...]) -> Iterator[Finding]:
    """Yield what is wrong with shapes, values, number and variety."""
    if seen.other_shapes:
        index, other = seen.other_shapes[0]
        yield Finding(
            "error",
            "shape",
            f"expected {shape}, received {other} of image {index}, and "
            f"{len(seen.other_shapes) - 1} more like it",
            "resize the images to the model's input",
        )
    if seen.not_finite:
        yield Finding(
            "error",
            "NaN",
            f"{len(seen.not_finite)} of {seen.count} images hold NaN or infinite values: "
            f"{_some(seen.not_finite)}",
            "leave them out, or mend what prepares them",
        )
    yield from _enough(seen)
    constant = len(seen.constant)
    if constant and constant == sum(seen.hashes.values()):
        yield Finding(
            "error",
            "constant",
            f"each of the {constant} images is of one colour, so no range can be measured",
            "calibrate with images like those the model will see",
        )
    elif constant:
        yield Finding(
            "warning",
            "constant",
            f"{constant} of {seen.count} images are of one colour: {_some(seen.constant)}",
            "leave them out: they say little about what the model will see",
        )


def _enough(seen: Seen) -> Iterator[Finding]:
    different = len(seen.hashes)
    if seen.count == 0:
        yield Finding("error", "count", "there is none", "give at least 2, better 100 and more")
    elif different == 1:
        what = "there is one image" if seen.count == 1 else f"all {seen.count} are one image"
        yield Finding("error", "count", what, "give at least 2, better 100 and more")
    elif different and different < _ENOUGH:
        yield Finding(
            "warning",
            "count",
            f"{different} different images, which rarely show all that the model will see",
            f"give at least {_ENOUGH}, better 100 and more",
        )
    elif different:
        yield Finding("note", "count", f"{different} different images")
    repeated = sum(seen.hashes.values()) - different
    if repeated and different > 1:
        many = repeated > _MANY_DUPLICATES * seen.count
        yield Finding(
            "warning" if many else "note",
            "duplicates",
            f"{repeated} of {seen.count} images repeat others",
            "leave them out: they count twice and show nothing new" if many else "",
        )


def normalisation(seen: Seen, expected: tuple[float, float] | None) -> Iterator[Finding]:
    """Yield whether the values are those (low, high) that the model was trained with."""
    if not seen.hashes:
        return
    found = f"values from {seen.low:.4g} to {seen.high:.4g}"
    if expected is None:
        yield Finding(
            "note", "normalisation", f"{found}; what the model was trained with is unknown"
        )
        return
    low, high = expected
    wanted = f"the model was trained with {low:.4g} to {high:.4g}"
    width = high - low
    is_outside = seen.low < low - _OUTSIDE * width or seen.high > high + _OUTSIDE * width
    is_narrow = seen.telling > 0 and seen.high - seen.low < _LEAST_COVERED * width
    if is_outside or is_narrow:
        yield Finding(
            "error",
            "normalisation",
            f"{found}, but {wanted}",
            "prepare the images as for training",
        )
    elif seen.high - seen.low < _COVERED * width:
        yield Finding(
            "warning",
            "normalisation",
            f"{found}, but {wanted}",
            "prepare the images as for training, or give brighter and darker ones",
        )
    else:
        yield Finding("note", "normalisation", f"{found}; {wanted}")


def coverage(labels: Iterable[Iterable[int]], classes: Sequence[str]) -> Finding:
    """Return whether each class is in some image."""
    counts: Counter[int] = Counter()
    for one in labels:
        counts.update(set(one))
    missing = [name for index, name in enumerate(classes) if not counts[index]]
    if missing:
        return Finding(
            "warning",
            "classes",
            f"{len(missing)} of {len(classes)} classes are in no image: {_some(missing)}",
            "add images of them",
        )
    least = min(counts, key=counts.__getitem__, default=None)
    if least is None:
        return Finding("note", "classes", "no classes are known")
    name = classes[least] if least < len(classes) else str(least)
    return Finding(
        "note",
        "classes",
        f"all {len(counts)} are there; the rarest, {name}, in {counts[least]} images",
    )


def _some(items: Sequence[object]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(map(str, items[:_LISTED])) + more
