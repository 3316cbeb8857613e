"""Pascal VOC: an XML file of boxes for each picture, and lists of the pictures of each split."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree  # only its element type and builder; expat does the parsing
from xml.parsers import expat

from edgeheads.data.formats.labels import (
    Complaints,
    make_objects,
    read_labelled_picture,
    require_few,
    require_size,
)
from edgeheads.data.formats.listing import (
    IMAGE_FOLDERS,
    Entry,
    Listing,
    ReadOptions,
    files_by_stem,
    find_subfolder,
    list_files,
    read_class_names,
    read_text,
)
from edgeheads.data.sample import LabelNames, Sample
from edgeheads.errors import EdgeheadsError

__all__ = ["EXPECTED", "detect", "parse_xml", "read"]

EXPECTED = "DIR/JPEGImages/*.jpg, DIR/Annotations/*.xml, optionally DIR/ImageSets/Main/*.txt"

_ANNOTATIONS = ("Annotations", "annotations")
_MAX_XML_BYTES = 16_000_000
_MAX_LIST_BYTES = 64_000_000


def detect(folder: Path) -> bool:
    """Look for a folder of pictures and one of XML files."""
    annotations = find_subfolder(folder, _ANNOTATIONS)
    if annotations is None or find_subfolder(folder, IMAGE_FOLDERS) is None:
        return False
    return any(path.suffix.lower() == ".xml" for path in annotations.iterdir())


def read(folder: Path, options: ReadOptions) -> Listing:
    """List the pictures that ImageSets/Main names, or all, in the order of their names.

    Classes are the lines of labels.txt, or else all names that the XML files use, sorted.

    Raises:
        EdgeheadsError: there are no pictures, no annotations, or no class is ever used.
    """
    annotations = find_subfolder(folder, _ANNOTATIONS)
    image_folder = find_subfolder(folder, IMAGE_FOLDERS)
    if annotations is None or image_folder is None:
        raise EdgeheadsError(f"{folder} is not in Pascal VOC format; expected {EXPECTED}")
    images, labels = files_by_stem(image_folder), files_by_stem(annotations, (".xml",))
    names = read_class_names(folder) or _used_classes(list(labels.values()))
    if not names:
        raise EdgeheadsError(f"no file in {annotations} names an object; expected {EXPECTED}")
    splits = {
        split: [
            Entry(
                stem,
                partial(_load, images.get(stem, image_folder / stem), labels.get(stem), names),
            )
            for stem in stems
        ]
        for split, stems in (_split_lists(folder) or {"": list(images)}).items()
    }
    problems = [
        f"annotation {path} has no picture of the same name in {image_folder}"
        for stem, path in labels.items()
        if stem not in images
    ]
    return Listing(splits, LabelNames(classes=names), tuple(problems))


def _split_lists(folder: Path) -> dict[str, list[str]]:
    """Return the names in ImageSets/Main/{train,val,test}.txt, or {} without any to learn from.

    trainval.txt counts as a train.txt where there is none.
    """
    lists = folder / "ImageSets" / "Main"
    # VOC itself has lists of one class as well, such as "cat_train.txt".
    paths = {path.stem: path for path in (list_files(lists, (".txt",)) if lists.is_dir() else [])}
    if "train" not in paths and "trainval" in paths:
        paths = {"train": paths["trainval"], **{k: v for k, v in paths.items() if k != "val"}}
    found: dict[str, list[str]] = {}
    for name in ("train", "val", "test"):
        if name in paths:
            lines = read_text(paths[name], _MAX_LIST_BYTES).splitlines()
            found[name] = sorted(line.split()[0] for line in lines if line.split())
    return found if "train" in found or "test" in found else {}


def _used_classes(paths: list[Path]) -> tuple[str, ...]:
    used: set[str] = set()
    for path in paths:
        try:
            root = parse_xml(path)
        except EdgeheadsError:
            continue  # it is reported when its sample is read
        used.update(_text(one, "name") for one in root.iter("object"))
    return tuple(sorted(used - {""}))


def parse_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file that declares no entities.

    Raises:
        EdgeheadsError: it is too large, is not well-formed, or has a DOCTYPE: entities can grow
            a small file without bound, or read other files.
    """

    def refuse(*_: object) -> None:
        raise EdgeheadsError(
            f"annotation {path} has a DOCTYPE or an entity, which is not read; remove it"
        )

    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        if path.stat().st_size > _MAX_XML_BYTES:
            raise EdgeheadsError(
                f"annotation {path} has more than the {_MAX_XML_BYTES:,} bytes allowed; "
                "cut the picture into tiles"
            )
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, OSError, AssertionError) as error:
        raise EdgeheadsError(
            f"annotation {path} cannot be read ({error}); expected well-formed XML"
        ) from None


def _load(image_path: Path, label_path: Path | None, names: tuple[str, ...]) -> Sample:
    if label_path is None:
        raise EdgeheadsError(
            f"picture {image_path} has no annotation of the same name; a picture without objects "
            "has an XML file without objects"
        )
    root = parse_xml(label_path)
    found = root.findall("object")
    require_few(len(found), str(label_path))
    complaints = Complaints(str(label_path))
    size = _declared_size(root)
    image = read_labelled_picture(image_path, size, complaints)
    require_size(image, size, image_path)
    boxes, classes, difficult = [], [], []
    for element in found:
        name = _text(element, "name")
        if name not in names:
            complaints.add("object of a class that labels.txt has not, left out", repr(name))
            continue
        boxes.append(_box(element))
        classes.append(names.index(name))
        difficult.append(_text(element, "difficult") == "1")
    objects = make_objects(boxes, classes, difficult, image.shape[:2], complaints)
    return Sample(image=image, name=str(image_path), objects=objects, problems=complaints.texts())


def _declared_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return (height, width); None where the file says nothing, or 0, as some tools write."""
    height, width = _number(root, "size/height"), _number(root, "size/width")
    return (int(height), int(width)) if height > 0 and width > 0 else None


def _box(element: ElementTree.Element) -> tuple[float, float, float, float]:
    """Return the box as in `Objects`; the file counts pixels from 1, the last one included."""
    left, top, right, bottom = (
        _number(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
    )
    # One that starts where it ends is a slip of the mouse rather than one pixel.
    return left - (right > left), top - (bottom > top), right, bottom


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ElementTree.Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan
