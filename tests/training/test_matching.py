"""Which anchor finds which object, by hand."""

from __future__ import annotations

import numpy as np

from edgeheads.heads.anchors import AnchorGenerator, AnchorLayout
from edgeheads.training.matching import IGNORED, NOTHING, match_anchors

# Sixteen anchors, each one cell of a 4x4 grid; row r and column c is anchor 4 r + c.
CELLS = AnchorLayout(AnchorGenerator((1.0,), (1.0,), cells=1.0), ((4, 4),))
# Two levels of anchors of several shapes, twice as large as their cells.
SHAPES = AnchorLayout(AnchorGenerator((1.0, 1.5), (0.5, 1.0, 2.0), 2.0), ((16, 16), (8, 8)))


def match(*boxes: list[float], layout: AnchorLayout = CELLS, crowd: list[int] = ()) -> np.ndarray:
    marked = np.isin(np.arange(len(boxes)), crowd)
    return match_anchors(layout, np.array(boxes, np.float32).reshape(-1, 4), marked)


def of(object_index: int, matched: np.ndarray) -> list[int]:
    return np.flatnonzero(matched == object_index).tolist()


def test_an_object_that_is_an_anchor_is_found_by_it_alone() -> None:
    """IoU 1 and eight times 0: mean 0.11 + deviation 0.31."""
    matched = match([0.25, 0.25, 0.5, 0.5])
    assert of(0, matched) == [5]
    assert len(of(NOTHING, matched)) == 15


def test_all_anchors_above_mean_and_deviation_find_it() -> None:
    """Four cells of IoU 0.25, five of 0: mean 0.11 + deviation 0.12 is 0.235."""
    assert of(0, match([0.25, 0.25, 0.75, 0.75])) == [5, 6, 9, 10]


def test_an_anchor_goes_to_the_object_that_it_overlaps_more() -> None:
    """Both want cell 5: the whole of it, or the four cells of which it is one."""
    matched = match([0.25, 0.25, 0.75, 0.75], [0.25, 0.25, 0.5, 0.5])
    assert of(0, matched) == [6, 9, 10]
    assert of(1, matched) == [5]


def test_an_object_without_an_anchor_centre_gets_its_best_anchor() -> None:
    assert of(0, match([0.26, 0.26, 0.3, 0.3])) == [5]


def test_of_two_in_one_place_both_are_found() -> None:
    matched = match([0.25, 0.25, 0.75, 0.75], [0.25, 0.25, 0.75, 0.75])
    assert of(0, matched)
    assert of(1, matched)
    assert of(0, matched) + of(1, matched) != of(0, matched)


def test_without_objects_nothing_is_to_be_found() -> None:
    assert of(NOTHING, match()) == list(range(16))


def test_what_lies_in_a_group_is_ignored() -> None:
    """The left two columns and 0.4 of the third: half an anchor must be covered."""
    matched = match([0, 0, 0.6, 1], crowd=[0])
    assert of(IGNORED, matched) == [0, 1, 4, 5, 8, 9, 12, 13]
    assert len(of(NOTHING, matched)) == 8


def test_an_object_in_front_of_a_group_is_still_found() -> None:
    matched = match([0, 0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], crowd=[0])
    assert of(1, matched) == [5]
    assert of(IGNORED, matched) == [0, 1, 4]
    assert of(0, matched) == []


def test_every_object_of_many_sizes_is_found_by_anchors_that_overlap_it() -> None:
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 0.6, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.02, 0.4, (12, 2))], 1).astype(np.float32)
    matched = match_anchors(SHAPES, boxes, np.zeros(12, bool))
    assert set(matched.tolist()) == {NOTHING, *range(12)}
    for row in np.flatnonzero(matched >= 0):
        box, anchor = boxes[matched[row]], SHAPES.boxes[row]
        assert (np.minimum(box[2:], anchor[2:]) > np.maximum(box[:2], anchor[:2])).all()


def test_the_order_of_objects_decides_only_their_numbers() -> None:
    rng = np.random.default_rng(2)
    low = rng.uniform(0, 0.6, (6, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.4, (6, 2))], 1).astype(np.float32)
    none = np.zeros(6, bool)
    forward = match_anchors(SHAPES, boxes, none)
    backward = match_anchors(SHAPES, boxes[::-1], none)
    np.testing.assert_array_equal(np.where(backward >= 0, 5 - backward, backward), forward)


def test_a_grid_smaller_than_the_neighbourhood_is_taken_whole() -> None:
    layout = AnchorLayout(AnchorGenerator((1.0,), (1.0,), 1.0), ((2, 2), (1, 1)))
    assert of(0, match([0, 0, 1, 1], layout=layout)) == [4]
