"""Which anchor is to find which object. NumPy only: it runs in the input pipeline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeheads.heads.anchors import AnchorLayout
from edgeheads.heads.boxes import intersection, paired_iou

__all__ = ["IGNORED", "NOTHING", "match_anchors"]

NOTHING = -1
"""An anchor that is to find nothing."""

IGNORED = -2
"""An anchor that counts for nothing, whatever it finds."""

# The nearest cells of each level whose anchors are candidates (Zhang et al. 2020, table 3).
_CANDIDATE_CELLS = 9

# An anchor of which a group of objects covers this share may find some of them.
_CROWD_SHARE = 0.5


def match_anchors(
    layout: AnchorLayout, boxes: NDArray[np.float32], crowd: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Return the object [A] of each anchor: a row of `boxes`, or `NOTHING`, or `IGNORED`.

    Candidates of an object are the anchors in the nine cells of each level that are nearest to
    its centre. It gets those that overlap it by at least the mean and one standard deviation of
    all its candidates, and whose centre it contains (Zhang et al. 2020, "Bridging the Gap Between
    Anchor-based and Anchor-free Detection", ATSS). An anchor that two objects want goes to the one
    it overlaps more. Beyond the paper, an object that is left with none gets its best candidate,
    so that no object is too small or too odd to be learned.

    Args:
        layout: the anchors.
        boxes: [N, 4], x_min, y_min, x_max, y_max in fractions of the image, of areas above 0.
        crowd: [N], true for groups: no anchor is to find them, and what lies in them is ignored.
    """
    matched = np.full(len(layout.boxes), NOTHING, np.int32)
    single = np.flatnonzero(~crowd)
    if single.size:
        _match_single(layout, boxes[single], single, matched)
    if single.size < len(boxes):
        anchors = layout.boxes[None]
        covered = intersection(boxes[crowd][:, None], anchors)
        inside = (covered >= _CROWD_SHARE * intersection(anchors, anchors)).any(axis=0)
        matched[inside & (matched == NOTHING)] = IGNORED
    return matched


def _match_single(
    layout: AnchorLayout,
    boxes: NDArray[np.float32],
    names: NDArray[np.intp],
    matched: NDArray[np.int32],
) -> None:
    """Write the names [N] of boxes [N, 4] into the rows [A] of their anchors."""
    rows = _candidates(layout, boxes)
    anchors, objects = layout.boxes[rows], boxes[:, None]
    overlap = paired_iou(anchors, objects)
    center = (anchors[..., :2] + anchors[..., 2:]) / 2
    inside = ((center > objects[..., :2]) & (center < objects[..., 2:])).all(axis=-1)
    least = overlap.mean(axis=1, keepdims=True) + overlap.std(axis=1, keepdims=True)
    owner, place = np.nonzero((overlap >= least) & inside)
    # Of several values written to one row, the last one stays.
    order = np.argsort(overlap[owner, place], kind="stable")
    owner, place = owner[order], place[order]
    matched[rows[owner, place]] = names[owner]
    left_out = np.flatnonzero(~np.isin(names, matched))
    best = overlap[left_out].argmax(axis=1)
    matched[rows[left_out, best]] = names[left_out]


def _candidates(layout: AnchorLayout, boxes: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the rows [N, C] of the anchors in the cells nearest to each box's centre."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    per_cell = layout.generator.per_cell
    cells, first = [], 0
    for rows, columns in layout.grids:
        across = (np.arange(columns) + 0.5 - center[:, :1] * columns) ** 2
        down = (np.arange(rows) + 0.5 - center[:, 1:] * rows) ** 2
        distance = (down[:, :, None] + across[:, None]).reshape(len(boxes), -1)
        count = min(_CANDIDATE_CELLS, rows * columns)
        cells.append(first + np.argpartition(distance, count - 1, axis=1)[:, :count])
        first += rows * columns
    anchors = np.concatenate(cells, axis=1)[..., None] * per_cell + np.arange(per_cell)
    return anchors.reshape(len(boxes), -1)
