"""Polygons and runs: every pixel worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgeheads.data.formats.masks import decode_runs, fill_polygons, unpack_runs


def test_polygon_takes_the_pixels_whose_centres_it_holds() -> None:
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    expected = np.zeros((4, 5), bool)
    expected[1:3, 1:3] = True
    assert np.array_equal(fill_polygons([square], (4, 5)), expected)
    # Half a pixel short of the centre on every side: the same pixels.
    assert np.array_equal(
        fill_polygons([[1.4, 1.4, 2.6, 1.4, 2.6, 2.6, 1.4, 2.6]], (4, 5)), expected
    )


def test_triangle_by_hand() -> None:
    # Below the diagonal from (0, 0) to (4, 4): row r holds the centres left of x = r + 0.5.
    rows = fill_polygons([[0, 0, 4, 4, 0, 4]], (4, 4)).sum(axis=1)
    assert rows.tolist() == [0, 1, 2, 3]


def test_polygons_add_up_and_a_polygon_s_own_hole_stays_open() -> None:
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [1, 0, 3, 0, 3, 2, 1, 2]
    assert fill_polygons([left, right], (2, 4)).sum() == 6
    ring = [0, 0, 6, 0, 6, 6, 0, 6, 0, 0, 2, 2, 2, 4, 4, 4, 4, 2, 2, 2]
    filled = fill_polygons([ring], (6, 6))
    assert filled.sum() == 36 - 4
    assert not filled[2:4, 2:4].any()


def test_polygon_beyond_the_image_is_cut() -> None:
    assert fill_polygons([[-5, -5, 50, -5, 50, 50, -5, 50]], (3, 4)).all()


def test_many_edges_are_laid_in_parts() -> None:
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([50 + 40 * np.cos(angles), 50 + 40 * np.sin(angles)], axis=1)
    area = fill_polygons([circle.ravel().tolist()], (100, 100)).sum()
    assert area == pytest.approx(np.pi * 40**2, rel=5e-3)


@pytest.mark.parametrize("polygon", [[1, 2, 3, 4], [0, 0, 1, 0, 1], [0, 0, 1, 0, float("nan"), 1]])
def test_no_polygon(polygon: list[float]) -> None:
    with pytest.raises(ValueError, match="needs pairs of x and y, three or more"):
        fill_polygons([polygon], (4, 4))


def test_runs_go_down_the_columns_and_begin_with_background() -> None:
    mask = decode_runs([1, 3, 2], (2, 3))
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 1, 0]]
    assert decode_runs([0, 6], (2, 3)).all()


@pytest.mark.parametrize("runs", [[1, 3], [7], [3, -1, 4]])
def test_runs_that_do_not_fit(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="must cover 6 pixels"):
        decode_runs(runs, (2, 3))


def pack_runs(runs: list[int]) -> str:
    """Pack as COCO's rleToString does."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(bits + 48 + (32 if more else 0))
    return text


def test_packed_runs() -> None:
    # 6, 1, 40, 4, 5: from the fourth on, differences to two before: 4 - 1 = 3, 5 - 40 = -35.
    assert pack_runs([6, 1, 40, 4, 5]) == "61X13mN"
    assert unpack_runs("61X13mN") == [6, 1, 40, 4, 5]


def test_packed_runs_come_back() -> None:
    rng = np.random.default_rng(0)
    for top in (2, 100, 100_000):
        runs = rng.integers(0, top, 50).tolist()
        assert unpack_runs(pack_runs(runs)) == runs


@pytest.mark.parametrize("text", ["X", "6 1", "6é", "o" * 30])
def test_broken_packed_runs(text: str) -> None:
    with pytest.raises(ValueError, match="packed runs"):
        unpack_runs(text)


def test_same_pixels_as_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    runs = unpack_runs(packed["counts"].decode())
    assert np.array_equal(decode_runs(runs, (37, 53)), mask)
