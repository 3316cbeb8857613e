"""`edgeheads data check`: counts by hand, everything wrong is named, the sheet shows labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run
from folders import FOLDERS, data_section, picture, voc, voc_object, voc_xml
from PIL import Image

from edgeheads.data.check import check_data, spread
from edgeheads.data.contact_sheet import Cell, contact_sheet
from edgeheads.errors import EdgeheadsError

SERVES = {
    "class-folders": {"classification"},
    "csv-keypoints": {"keypoints"},
    "coco": {"detection"},
    "voc": {"detection"},
    "mask-folders": {"segmentation"},
    "instance-folders": {"detection", "instance-segmentation"},
    "rgbd": {"depth"},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_labels_serve_the_tasks_they_are_for_and_are_drawn(name: str, tmp_path: Path) -> None:
    report = check_data(data_section(FOLDERS[name](tmp_path)))
    total = 10 if name == "class-folders" else 5
    assert report.format == name
    assert report.splits == {"train": total * 4 // 5, "test": total // 5}
    assert dict(report.tasks) == dict.fromkeys(SERVES[name], total)
    assert (report.usable, report.bad, report.problems) == (total, [], [])
    assert len(report.cells) == total
    panels = report.cells[0].panels
    assert set(panels) == {"image", *SERVES[name]}
    assert len({panel.shape for panel in panels.values()}) == 1
    for task in SERVES[name]:
        assert not np.array_equal(panels[task], panels["image"])


def test_counts(tmp_path: Path) -> None:
    voc(tmp_path, 3)
    picture(tmp_path / "JPEGImages" / "big.png", seed=9, size=(60, 50))
    voc_xml(tmp_path / "Annotations" / "big.xml", voc_object("dog", 1, 1, 9, 9), size=(60, 50))
    report = check_data(data_section(tmp_path))
    assert dict(report.classes) == {"cat": 3, "dog": 4}
    assert spread(report.widths) == {"min": 32, "median": 32.0, "max": 50}
    assert spread(report.heights) == {"min": 24, "median": 24.0, "max": 60}


def test_rendered_scenes_serve_every_task() -> None:
    report = check_data(data_section("synthetic", train_samples=2, test_samples=1), drawn=2)
    assert set(report.tasks) >= {"depth", "detection", "segmentation", "keypoints"}
    assert report.usable == 3
    assert len(report.cells) == 2


def broken(folder: Path) -> Path:
    voc(folder, 6)
    (folder / "JPEGImages" / "2.png").write_bytes(b"cut")
    voc_xml(folder / "Annotations" / "3.xml", voc_object("cat", 5, 5, 5, 5))
    picture(folder / "JPEGImages" / "4.png", seed=1)
    (folder / "Annotations" / "stray.xml").write_text("<annotation/>")
    return folder


def test_everything_wrong_is_named_once(tmp_path: Path) -> None:
    report = check_data(data_section(broken(tmp_path)))
    assert report.usable == 5
    assert len(report.bad) == 1
    assert "2.png cannot be read (" in report.bad[0]
    said = "\n".join(report.problems)
    assert len(report.problems) == 3
    assert "stray.xml has no picture of the same name" in said
    assert "3.xml: box without area, left out" in said
    assert f"4.png: the same picture as {tmp_path}/JPEGImages/1.png" in said


def test_one_split_that_cannot_be_used_does_not_hide_the_other(tmp_path: Path) -> None:
    voc(tmp_path, 5)
    (tmp_path / "JPEGImages" / "4.png").write_bytes(b"cut")
    report = check_data(data_section(tmp_path))
    assert (report.usable, len(report.bad)) == (4, 1)


def test_command(tmp_path: Path) -> None:
    folder = broken(tmp_path / "data")
    done = run("data", "check", folder, "--out", tmp_path / "a" / "sheet.png")
    assert done.returncode == 0, done.stderr
    assert "voc, 5 train, 1 test (data.split tail, data.test_fraction 0.2)" in done.stdout
    assert "Usable: 5 of 6 samples" in done.stdout
    assert "Labels serve: detection (5)" in done.stdout
    assert "1 bad files:" in done.stdout
    assert "3 label problems:" in done.stdout
    assert Image.open(tmp_path / "a" / "sheet.png").width > 200
    done = run("data", "check", folder, "--strict", "--json", "--out", tmp_path / "sheet.png")
    assert done.returncode == 1
    assert "1 bad files and 3 label problems in" in done.stderr
    content = json.loads(done.stdout)
    assert content["classes"] == {"cat": 4, "dog": 4}
    assert content["contact_sheet"] == str(tmp_path / "sheet.png")


def test_command_refuses_what_it_cannot_list(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    done = run("data", "check", tmp_path)
    assert done.returncode == 2
    assert "is in no known format; say which it is with --format" in done.stderr
    done = run("data", "check", tmp_path, "--format", "vco")
    assert "unknown data format 'vco'; did you mean voc" in done.stderr


def test_sheet_holds_every_cell_row_by_row() -> None:
    red = np.full((40, 200, 3), (255, 0, 0), np.uint8)
    sheet = contact_sheet([Cell("a" * 300, {"image": red})] * 8)
    assert (sheet == (255, 0, 0)).all(axis=-1).sum() == 8 * 40 * 200
    assert sheet.shape[1] <= 1340
    with pytest.raises(EdgeheadsError, match="there is no sample to draw"):
        contact_sheet([])
