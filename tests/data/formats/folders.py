"""Small data sets on disk, one of each format: 32x24 pictures of noise, two things in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Write a picture of noise, which no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def mask(path: Path, values: np.ndarray) -> Path:
    """Write a grey mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def rectangle(left: int, top: int, right: int, bottom: int, value: int = 1) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[top:bottom, left:right] = value
    return values


def class_folders(folder: Path, count: int = 5) -> Path:
    for label, name in enumerate(("cat", "dog")):
        for i in range(count):
            picture(folder / name / f"{i}.png", seed=100 * label + i)
    return folder


def csv_keypoints(folder: Path, count: int = 5) -> Path:
    rows = ["image,left_eye_x,left_eye_y,right_eye_x,right_eye_y"]
    for i in range(count):
        picture(folder / "images" / f"{i}.png", seed=i)
        rows.append(f"{i}.png,{20.25 + i},8.5,10.0,9.75")
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    return folder


def coco_content(count: int = 5) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(count)
        ],
        "annotations": [
            {
                "id": 10 * i + j,
                "image_id": i,
                "category_id": 7 + j,
                "bbox": [4 + j, 5, 10, 8],
                "area": 80,
                "iscrowd": 0,
            }
            for i in range(count)
            for j in range(2)
        ],
        "categories": [{"id": 8, "name": "dog"}, {"id": 7, "name": "cat"}],
    }


def coco(folder: Path, content: dict[str, Any] | None = None) -> Path:
    content = coco_content() if content is None else content
    for i in range(5):
        picture(folder / "images" / f"{i}.png", seed=i)
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    return folder


def voc_object(name: str, *box: float, difficult: int = 0) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>"
    )


def voc_xml(path: Path, *objects: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    declared = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    path.write_text(f"<annotation>{declared}{''.join(objects)}</annotation>")
    return path


def voc(folder: Path, count: int = 5) -> Path:
    for i in range(count):
        picture(folder / "JPEGImages" / f"{i}.png", seed=i)
        objects = voc_object("cat", 1, 1, 10, 12), voc_object("dog", 5, 6, 20, 24, difficult=1)
        voc_xml(folder / "Annotations" / f"{i}.xml", *objects)
    return folder


def mask_folders(folder: Path, count: int = 5) -> Path:
    for i in range(count):
        picture(folder / "images" / f"{i}.png", seed=i)
        mask(folder / "masks" / f"{i}.png", rectangle(3, 4, 20, 15, value=1))
    return folder


def instance_folders(folder: Path, count: int = 5) -> Path:
    for i in range(count):
        picture(folder / f"id{i}" / "images" / f"id{i}.png", seed=i)
        mask(folder / f"id{i}" / "masks" / "a.png", rectangle(2, 3, 9, 10, value=255))
        mask(folder / f"id{i}" / "masks" / "b.png", rectangle(12, 3, 19, 10, value=255))
    return folder


def rgbd(folder: Path, count: int = 5) -> Path:
    for i in range(count):
        picture(folder / "color" / f"{i}.png", seed=i)
        mask(folder / "depth" / f"{i}.png", np.full((HEIGHT, WIDTH), 1500 + i, np.uint16))
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "class-folders": class_folders,
    "csv-keypoints": csv_keypoints,
    "coco": coco,
    "voc": voc,
    "mask-folders": mask_folders,
    "instance-folders": instance_folders,
    "rgbd": rgbd,
}


def data_section(folder: Path | str, **changes: Any) -> dict[str, Any]:
    """Return a recipe's `data` section as plain values."""
    from edgeheads.recipe import DataSection

    return DataSection(source=str(folder)).model_dump(mode="json") | changes
