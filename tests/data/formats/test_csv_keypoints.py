"""Tables of keypoints: headers as people write them, cells as people leave them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import HEIGHT, WIDTH, csv_keypoints, picture

from edgeheads.data.formats.csv_keypoints import detect, read
from edgeheads.data.formats.listing import ReadOptions
from edgeheads.data.sample import Sample
from edgeheads.data.sources import divide
from edgeheads.errors import EdgeheadsError

SHARED = Path(__file__).resolve().parents[3] / "../shared/data/keypoints_face"


def table(folder: Path, *lines: str) -> Path:
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png")
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder


def first(folder: Path) -> Sample:
    return read(folder, ReadOptions()).splits[""][0].load()


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("file,left_eye_x,left_eye_y,nose_x,nose_y", ("left_eye", "nose")),
        ("file,x0,y0,x1,y1", ("0", "1")),
        ("file,x_0,y_0,x_1,y_1", ("0", "1")),
        ("file,eye.x,eye.y,Nose X,Nose Y", ("eye", "Nose")),
        (",0,1,2,3", ("0", "1")),
        ("file,x_a,x_b,y_a,y_b", ("a", "b")),
    ],
)
def test_headers(tmp_path: Path, header: str, names: tuple[str, ...]) -> None:
    row = "a.png,1.5,3.25,2.0,4.0" if "x_b" in header else "a.png,1.5,2.0,3.25,4.0"
    table(tmp_path, header, row)
    assert detect(tmp_path)
    assert read(tmp_path, ReadOptions()).names.keypoints == names
    assert first(tmp_path).keypoints.tolist() == [[1.5, 2, 2], [3.25, 4, 2]]


def test_the_file_name_need_not_come_first(tmp_path: Path) -> None:
    table(tmp_path, "id,eye_x,eye_y,path", "7,1.5,2.5,b.png")
    assert first(tmp_path).name.endswith("images/b.png")


def test_whole_numbers_count_pixels_and_point_at_their_centres(tmp_path: Path) -> None:
    table(tmp_path, "file,x0,y0", "a.png,3,4.0", "b.png,5,6")
    assert first(tmp_path).keypoints.tolist() == [[3.5, 4.5, 2]]


def test_visibility_and_empty_cells(tmp_path: Path) -> None:
    table(tmp_path, "file,a_x,a_y,a_v,b_x,b_y,b_v,c_x,c_y", "a.png,1.5,2,1,3,4,0,,")
    sample = first(tmp_path)
    assert sample.keypoints.tolist() == [[1.5, 2, 1], [0, 0, 0], [0, 0, 0]]
    assert sample.problems == ()


def test_errors_are_measured_by_the_box_around_the_points(tmp_path: Path) -> None:
    table(tmp_path, "file,a_x,a_y,b_x,b_y,c_x,c_y", "a.png,1.5,2,5.5,2,1.5,11")
    assert first(tmp_path).keypoint_scale == 6.0


def test_points_outside_are_left_out_and_said(tmp_path: Path) -> None:
    table(tmp_path, "file,a_x,a_y,b_x,b_y", f"a.png,-1.5,2,{WIDTH},{HEIGHT}")
    sample = first(tmp_path)
    assert sample.keypoints.tolist() == [[0, 0, 0], [WIDTH, HEIGHT, 2]]
    assert "a.png: keypoint outside the image, left out; received [-1.5, 2.0]" in sample.problems[0]


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    table(
        tmp_path,
        "file,a_x,a_y",
        "a.png,1.5,two",
        "b.png,1",
        "../a.png,1,2",
        "c.png,1,2",
        "b.png,3,4",
    )
    listing = read(tmp_path, ReadOptions())
    said = []
    for entry in listing.splits[""]:
        with pytest.raises(EdgeheadsError) as caught:
            entry.load()
        said.append(str(caught.value))
    assert "expected a relative path inside" in said[0]
    assert "points.csv row 2 must have a number, or nothing, for each of 1 points" in said[1]
    assert "points.csv row 3 must have a number" in said[2]
    assert "c.png does not exist" in said[3]
    assert "labels 'b.png' in rows 3 and 6; the first counts" in listing.problems[0]


def test_left_and_right_are_pairs(tmp_path: Path) -> None:
    names = read(csv_keypoints(tmp_path), ReadOptions()).names
    assert names.mirrored_keypoints == ((0, 1),)


def face_row(points: np.ndarray) -> str:
    return ",".join(["a.png", *(f"{value:.3f}" for value in points.ravel())])


def test_68_points_are_a_face_whose_mirror_is_a_face(tmp_path: Path) -> None:
    header = ",".join(["", *map(str, range(136))])
    table(tmp_path, header, face_row(np.full((68, 2), 5.25)))
    pairs = read(tmp_path, ReadOptions()).names.mirrored_keypoints
    swapped = [point for pair in pairs for point in pair]
    assert len(swapped) == len(set(swapped)) == 58
    # The chin, the bridge and tip of the nose, and the middles of the lips stay.
    assert set(range(68)) - set(swapped) == {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data/keypoints_face is not there")
def test_real_faces_and_their_mirror() -> None:
    """In the mirror of the mean face each point lies near the mean of the same name."""
    listing = read(SHARED, ReadOptions())
    samples = [entry.load() for entry in listing.splits[""]]
    assert len(samples) == 160
    assert all((sample.keypoints[:, 2] == 2).all() for sample in samples)
    points = [sample.keypoints[:, :2] for sample in samples]
    mean = np.mean([(one - one.mean(axis=0)) / one.std() for one in points], axis=0)
    order = np.arange(68)
    for one, other in listing.names.mirrored_keypoints:
        order[[one, other]] = other, one
    assert np.abs(mean[order] * [-1, 1] - mean).max() < 0.25


def test_tables_of_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        picture(tmp_path / "images" / f"{split}.png")
        (tmp_path / f"{split}.csv").write_text(f"file,x0,y0\n{split}.png,1,2\n")
    division = divide(read(tmp_path, ReadOptions()), "tail", 0.2)
    assert [entry.name for entry in division.test] == ["./test.png"]
    (tmp_path / "testing.csv").write_text("file,x0,y0\n")
    with pytest.raises(EdgeheadsError, match=r"test\.csv and .*testing\.csv are two tables"):
        read(tmp_path, ReadOptions())


def test_table_of_something_else(tmp_path: Path) -> None:
    table(tmp_path, "file,width,height", "a.png,1,2")
    assert not detect(tmp_path)
    with pytest.raises(EdgeheadsError, match="has no columns of points in its header"):
        read(tmp_path, ReadOptions())
