"""Names of keypoints that change places in a mirror."""

from __future__ import annotations

import pytest

from edgeheads.data.formats.labels import Complaints, mirrored_pairs


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("nose", "left_eye", "right_eye"), ((1, 2),)),
        (("LeftEye", "nose", "RightEye"), ((0, 2),)),
        (("R_Shoulder", "L_Shoulder"), ((1, 0),)),
        (("eye.l", "eye.r", "ear l", "ear r"), ((0, 1), (2, 3))),
        (("lefteye", "righteye"), ((0, 1),)),
        (("left_eye", "nose"), ()),
        (("left_left", "right_right"), ((0, 1),)),
        (("0", "1"), ()),
    ],
)
def test_mirrored_pairs(names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert mirrored_pairs(names) == pairs


def test_the_seventeen_points_of_a_person() -> None:
    sides = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    names = ["nose", *(f"{side}_{part}" for part in sides for side in ("left", "right"))]
    assert mirrored_pairs(names) == tuple((i, i + 1) for i in range(1, 17, 2))


def test_complaints_are_one_sentence_a_kind() -> None:
    complaints = Complaints("a.jpg")
    for number in range(3):
        complaints.add("box without area", [number, 0])
    complaints.add("odd")
    assert complaints.texts() == (
        "a.jpg: box without area, 3 times; received [0, 0]",
        "a.jpg: odd",
    )
