"""What the reader of a format hands over, and what the readers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeheads.data.images import IMAGE_SUFFIXES
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = [
    "IMAGE_FOLDERS",
    "Entry",
    "Listing",
    "ReadOptions",
    "files_by_stem",
    "find_subfolder",
    "list_files",
    "path_inside",
    "read_class_names",
    "read_text",
    "split_folders",
    "split_of",
]

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages")
"""What folders of pictures are called."""

# Names of predefined splits, as people spell them.
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_CLASS_FILES = ("labels.txt", "classes.txt")


@dataclass(frozen=True)
class ReadOptions:
    """What a recipe's `data` section says to readers.

    Attributes:
        depth_unit: metres of one step of an integer depth map.
        keypoint_crops: one sample for each object with keypoints, instead of one for each image.
    """

    depth_unit: float = 0.001
    keypoint_crops: bool = False


@dataclass(frozen=True)
class Entry:
    """One sample that can be read.

    Attributes:
        name: of the file, unique in its split; "hash" splits go by it.
        load: reads it.
        group: entries of one group are divided among themselves, such as those of one class.
    """

    name: str
    load: Callable[[], Sample]
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        splits: entries in the order of their names, by "train", "val" and "test", as far as the
            folder says; or all of them under "" where it does not.
        names: of the labels, the same for all splits.
        problems: what is wrong with the folder that belongs to no entry, a sentence each.
    """

    splits: Mapping[str, Sequence[Entry]]
    names: LabelNames
    problems: tuple[str, ...] = ()


def split_of(name: str) -> str:
    """Return "train", "val" or "test" for a name that says so ("train2017"), else ""."""
    words = "".join(letter if letter.isalpha() else " " for letter in name.lower()).split()
    for split, spellings in _SPLITS.items():
        if any(word in spellings for word in words):
            return split
    return ""


def split_folders(folder: Path) -> dict[str, Path]:
    """Return {split: its folder} where the folder has one for training or test; else {"": it}.

    A folder of nothing but pictures is no split: it may as well be a class called "train".
    """
    found = {
        split: folder / spelling
        for split, spellings in _SPLITS.items()
        for spelling in spellings
        if (folder / spelling).is_dir() and _holds_more_than_pictures(folder / spelling)
    }
    return found if "train" in found or "test" in found else {"": folder}


def _holds_more_than_pictures(folder: Path) -> bool:
    return any(path.is_dir() or path.suffix.lower() == ".csv" for path in folder.iterdir())


def find_subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first folder in `folder` that has one of the names, or None."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def list_files(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return the files with some suffixes, in the order of their names."""
    return sorted(
        path
        for path in folder.iterdir()
        # Some systems leave a hidden ".x.jpg" beside "x.jpg" that is no picture.
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    )


def files_by_stem(folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Return {file name without its suffix: path} of `list_files`."""
    return {path.stem: path for path in list_files(folder, suffixes)}


def path_inside(folder: Path, name: object, where: Path) -> Path:
    """Return folder / name for a file name that an annotation gives.

    Args:
        folder: what the name is relative to.
        name: as it was read.
        where: the annotation file, for messages.

    Raises:
        EdgeheadsError: the name is no text, is absolute, or leads out of the folder.
    """
    text = name.strip() if isinstance(name, str) else ""
    plain = PurePosixPath(text)
    windows = "\\" in text or text[1:2] == ":"
    if not text or plain.is_absolute() or ".." in plain.parts or windows or "\0" in text:
        raise EdgeheadsError(
            f"{where} names the file {name!r}; expected a relative path inside {folder}"
        )
    return folder / plain


def read_text(path: Path, limit_bytes: int) -> str:
    """Return the content of a text file, UTF-8.

    Raises:
        EdgeheadsError: it cannot be read, is no text, or is larger than the limit.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise EdgeheadsError(
                f"{path} has {path.stat().st_size:,} bytes, more than the {limit_bytes:,} allowed; "
                "divide it"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeheadsError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "expected UTF-8 text"
        ) from None


def read_class_names(folder: Path) -> tuple[str, ...]:
    """Return the class names of labels.txt or classes.txt, one a line; () where there is none.

    Raises:
        EdgeheadsError: a name that is there twice.
    """
    for name in _CLASS_FILES:
        path = folder / name
        if path.is_file():
            lines = [line.strip() for line in read_text(path, 1_000_000).splitlines()]
            names = tuple(line for line in lines if line)
            twins = sorted({name for name in names if names.count(name) > 1})
            if twins:
                raise EdgeheadsError(f"{path} names the class {twins[0]!r} twice; keep one")
            return names
    return ()
