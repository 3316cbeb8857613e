"""Maps at other sizes."""

from __future__ import annotations

import numpy as np

from edgeheads.tasks.maps import resize_bilinear


def test_resize_bilinear_by_hand() -> None:
    """Pixel centres: 2 -> 4 samples at -0.25, 0.25, 0.75, 1.25 of the source, edges repeated."""
    assert resize_bilinear(np.array([[0.0, 4.0]]), (1, 4)).tolist() == [[0.0, 1.0, 3.0, 4.0]]
    assert resize_bilinear(np.array([[0.0], [4.0]]), (4, 1))[:, 0].tolist() == [0, 1, 3, 4]


def test_channels_are_resized_each_for_itself() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    resized = resize_bilinear(maps, (7, 5))
    assert resized.shape == (7, 5, 2)
    for channel in range(2):
        np.testing.assert_array_equal(
            resized[..., channel], resize_bilinear(maps[..., channel], (7, 5))
        )
