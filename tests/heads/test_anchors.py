"""Anchors by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.heads.anchors import AnchorGenerator, AnchorLayout, check_anchor_count


def test_one_square_anchor_per_cell_of_a_two_by_two_grid():
    boxes = AnchorGenerator(scales=(1.0,), ratios=(1.0,), cells=1.0).boxes([(2, 2)])
    expected = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)


def test_a_ratio_is_height_by_width_at_equal_area():
    boxes = AnchorGenerator(scales=(1.0,), ratios=(4.0,), cells=2.0).boxes([(4, 4)])
    # Two cells square is 4 cells of area: 1 wide, 4 high, around the centre (0.5, 0.5) cells.
    np.testing.assert_allclose(boxes[0], np.array([0, -1.5, 1, 2.5]) / 4, atol=1e-6)


def test_order_is_level_row_column_scale_ratio():
    generator = AnchorGenerator(scales=(1.0, 2.0), ratios=(1.0, 4.0), cells=1.0)
    boxes = generator.boxes([(2, 3), (1, 1)])
    assert boxes.shape == (7 * 4, 4)
    assert generator.count([(2, 3), (1, 1)]) == 28
    widths = (boxes[:, 2] - boxes[:, 0])[:4] * 3
    np.testing.assert_allclose(widths, [1, 0.5, 2, 1], atol=1e-6)
    centers = (boxes[::4, :2] + boxes[::4, 2:]) / 2
    np.testing.assert_allclose(centers[1], [0.5, 0.25], atol=1e-6)  # the second column
    np.testing.assert_allclose(centers[3], [1 / 6, 0.75], atol=1e-6)  # the second row
    np.testing.assert_allclose(centers[6], [0.5, 0.5], atol=1e-6)  # the second level


def test_a_layout_comes_back_from_json_with_the_same_anchors():
    layout = AnchorLayout(AnchorGenerator((1.0, 2.0), (0.5, 1.0), 3.0), ((4, 6), (2, 3)))
    content = json.loads(json.dumps(layout.to_json()))
    assert content == {
        "scales": [1.0, 2.0],
        "ratios": [0.5, 1.0],
        "cells": 3.0,
        "grids": [[4, 6], [2, 3]],
    }
    twin = AnchorLayout.from_json(content)
    assert twin == layout
    np.testing.assert_array_equal(twin.boxes, layout.generator.boxes([(4, 6), (2, 3)]))
    with pytest.raises(ValueError, match="read-only"):
        twin.boxes[0] = 0


def test_a_count_that_does_not_fit_is_refused_with_both_numbers():
    with pytest.raises(
        EdgeheadsError, match=r"classifications has 75 rows for 76 anchors.*boxes\("
    ):
        check_anchor_count(76, 75, "classifications")
    check_anchor_count(76, 76, "classifications")


@pytest.mark.parametrize("options", [{"scales": ()}, {"ratios": (0.0,)}, {"cells": -1.0}])
def test_sizes_must_be_above_zero(options):
    with pytest.raises(EdgeheadsError, match="above 0"):
        AnchorGenerator(**options)


def test_what_a_device_needs_of_a_detector_imports_no_framework():
    code = (
        "import sys; import edgeheads.heads.anchors, edgeheads.heads.boxes, edgeheads.heads.masks;"
        "from edgeheads.heads import HeadConfiguration;"
        "[HeadConfiguration.get_default_config(t) for t in ('det', 'multi')];"
        "sys.exit(bool({'keras', 'tensorflow', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
