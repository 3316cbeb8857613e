"""What a head takes, and how large what it gives is."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.heads import create_vision_head
from edgeheads.heads.layers.inputs import as_maps

_SMALL = {"hidden_dim": 8, "use_ffn": False, "normalization_type": "batch_norm"}


def _segment(inputs, **options):
    head = create_vision_head("segmentation", num_classes=2, **{**_SMALL, **options})
    return head(inputs)["logits"].shape


def _zeros(*shape):
    return np.zeros(shape, "float32")


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8, 14, 16, 32])
def test_upsampling_gives_exactly_its_factor(factor):
    assert _segment(_zeros(1, 2, 3, 4), upsampling_factor=factor) == (1, 2 * factor, 3 * factor, 2)


@pytest.mark.parametrize("size", [(7, 9), (64, 96), (5, 3), (1, 1)])
def test_output_size_is_the_outputs_size(size):
    assert _segment(_zeros(1, 8, 12, 4), output_size=size) == (1, *size, 2)


@pytest.mark.parametrize(
    "sizes",
    [[(8, 8), (4, 4)], [(9, 7), (5, 4), (3, 2)], [(12, 12), (4, 4)], [(4, 4), (4, 4)]],
    ids=["2", "odd", "3", "equal"],
)
def test_lists_of_any_strides_are_fused(sizes):
    maps = [_zeros(1, *size, 4 + index) for index, size in enumerate(sizes)]
    expected = (1, 2 * sizes[0][0], 2 * sizes[0][1], 2)
    assert _segment(maps, upsampling_factor=2) == expected
    assert _segment(dict(zip("abc", maps, strict=False)), upsampling_factor=2) == expected
    head = create_vision_head("detection", num_classes=2, **_SMALL)
    anchors = 9 * sum(height * width for height, width in sizes)
    assert head(maps)["classifications"].shape == (1, anchors, 2)
    assert len(head.anchors.boxes(sizes)) == anchors


@pytest.mark.parametrize(("prefix", "grid"), [(0, None), (1, None), (5, None), (1, (2, 8))])
def test_tokens_lose_what_stands_in_front_of_the_patches(prefix, grid):
    patches = np.arange(16 * 3, dtype="float32").reshape(1, 16, 3)
    tokens = np.concatenate([np.full((1, prefix, 3), -1, "float32"), patches], axis=1)

    def part(layer_class, name, **config):
        return layer_class(name=name, **config)

    (found,) = as_maps(part, tokens, grid)
    rows, columns = grid or (4, 4)
    expected = patches.reshape(1, rows, columns, 3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(found), expected)


def test_without_skip_connections_the_finer_maps_are_not_read():
    rng = np.random.default_rng(0)
    fine, coarse = rng.normal(size=(1, 8, 8, 4)), rng.normal(size=(1, 4, 4, 6))
    changed = {}
    for skip in (True, False):
        head = create_vision_head(
            "segmentation", num_classes=2, use_skip_connections=skip, **_SMALL
        )
        first, second = (
            np.array(head([x.astype("float32"), coarse.astype("float32")])["logits"])
            for x in (fine, fine + 1)
        )
        changed[skip] = bool((first != second).any())
    assert changed == {True: True, False: False}


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([], "at least one feature map"),
        (_zeros(1, 5), r"feature map \[B, H, W, C\].*received a tensor of shape \(1, 5\)"),
        ([_zeros(1, 4, 4, 2), _zeros(1, 8, 8, 2)], r"fine to coarse, received heights \[4, 8\]"),
        (_zeros(1, 60, 4), r"60 tokens are no square grid.*pass grid_size=\(rows, columns\)"),
    ],
)
def test_what_is_no_input_is_refused(inputs, text):
    with pytest.raises(EdgeheadsError, match=text):
        as_maps(lambda *_, **__: None, inputs, None)


def test_a_grid_that_needs_more_tokens_is_refused():
    with pytest.raises(EdgeheadsError, match="grid_size 5x5 needs 25 tokens, received 16"):
        as_maps(lambda *_, **__: None, _zeros(1, 16, 4), (5, 5))
