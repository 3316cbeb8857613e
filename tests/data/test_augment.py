"""Augmentations keep labels true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeheads.data.augment import AUGMENTATIONS, augment, flip
from edgeheads.data.scenes.labels import NAMES
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.errors import EdgeheadsError

SCENE = SyntheticScenes(1, (32, 48))[0]


class Always:
    """Stands for a generator whose coin always says yes."""

    def random(self) -> float:
        return 1.0


def test_flip_moves_image_and_labels_together_and_mirrors_normals() -> None:
    flipped = flip(SCENE, Always(), NAMES)  # type: ignore[arg-type]
    np.testing.assert_array_equal(flipped.image, SCENE.image[:, ::-1])
    np.testing.assert_array_equal(flipped.depth, SCENE.depth[:, ::-1])
    np.testing.assert_array_equal(flipped.semantic, SCENE.semantic[:, ::-1])
    np.testing.assert_array_equal(flipped.normals[..., 0], -SCENE.normals[:, ::-1, 0])
    np.testing.assert_array_equal(flipped.normals[..., 1:], SCENE.normals[:, ::-1, 1:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(sorted(AUGMENTATIONS)), max_size=4))
def test_labels_stay_valid(seed: int, names: list[str]) -> None:
    out = augment(SCENE, names, np.random.default_rng(seed), NAMES)
    assert out.image.shape == SCENE.image.shape
    assert out.image.dtype == np.uint8
    np.testing.assert_allclose(np.sort(out.depth, axis=None), np.sort(SCENE.depth, axis=None))
    np.testing.assert_allclose(np.linalg.norm(out.normals, axis=-1), 1, atol=1e-4)


def test_colour_changes_pixels_and_no_label() -> None:
    out = augment(SCENE, ["color"], np.random.default_rng(1), NAMES)
    assert not np.array_equal(out.image, SCENE.image)
    assert out.depth is SCENE.depth


def test_unknown_augmentation() -> None:
    with pytest.raises(EdgeheadsError, match=r"unknown augmentation 'flop'; did you mean flip\?"):
        augment(SCENE, ["flop"], np.random.default_rng(0), NAMES)
