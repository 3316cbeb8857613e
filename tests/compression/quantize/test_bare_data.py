"""What is kept of the training split where nothing is trained."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import tiny_recipe

pytest.importorskip("tensorflow")

from edgeheads.compression.quantize.bare_data import read_bare_data
from edgeheads.progress import SilentProgress
from edgeheads.tasks import get_task
from edgeheads.train import read_training_data


@pytest.mark.parametrize(("calibrated", "kept"), [(2, [0, 1, 3, 4, 5]), (4, [0, 1, 2, 3, 4, 5])])
@pytest.mark.parametrize("name", ["depth", "multi-task"])
def test_the_first_and_last_are_kept_and_all_teach(
    name: str, calibrated: int, kept: list[int]
) -> None:
    """Of 6 scenes, 2 or 4 are calibrated with, and 3 are wanted at the end."""
    recipe = tiny_recipe(
        task=name, **{"head.options": {}, "export.calibration_samples": calibrated}
    )
    task = get_task(recipe.task, recipe.head.options)
    whole = read_training_data(recipe, task, SilentProgress())
    bare, baseline = read_bare_data(recipe, task, 3, SilentProgress())
    assert baseline == task.baseline(whole.samples, whole.names)
    assert bare.names == whole.names
    assert len(bare.samples) == len(kept)
    for index, found in zip(kept, bare.samples, strict=True):
        wanted = whole.samples[index]
        assert found.name == wanted.name
        np.testing.assert_array_equal(found.image, wanted.image)
        assert found.depth is found.normals is found.keypoints is None
        assert found.objects is not None
        assert found.objects.masks is None
