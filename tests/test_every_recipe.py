"""Every recipe that ships, end to end, on a handful of small scenes and a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import QUICK_BENCH

pytest.importorskip("tensorflow")

from edgeheads.bundle import Bundle
from edgeheads.convert import convert
from edgeheads.data.synthetic import SyntheticScenes
from edgeheads.evaluate import bundle_predictor, bundle_task
from edgeheads.recipe import list_recipes, load_recipe
from edgeheads.runtime import DeviceSession


@pytest.mark.slow
@pytest.mark.parametrize("name", list_recipes())
def test_recipe_runs_end_to_end(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name).with_values(
        **{
            "input_size": 64,
            "data.train_samples": 8,
            "data.test_samples": 4,
            "training.steps": 4,
            "training.batch_size": 4,
            "export.precisions": ["int8"],
            "export.calibration_samples": 8,
        }
    )
    result = convert(recipe, tmp_path, bench_settings=QUICK_BENCH)
    task = bundle_task(result.bundles["int8"])
    named = {metric.name: metric for metric in task.metrics}
    for scores in (result.float_scores, result.evaluations["int8"], result.baseline):
        assert set(scores["metrics"]) == set(named)
        for metric, value in scores["metrics"].items():
            assert named[metric].low <= value <= named[metric].high, metric
    failed = [check for check in result.checks["int8"] if not check.passed]
    # So short a training leaves noise, of which int8 keeps no more than noise.
    assert [check for check in failed if "close to the float model" not in check.name] == []

    bundle = Bundle(tmp_path / "int8")
    scene = SyntheticScenes(1, (64, 64))[0]
    with DeviceSession() as session:
        [prediction] = bundle_predictor(bundle, session)([scene.image])
    picture = task.draw(scene.image, prediction, bundle.contract.labels)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert task.draw_label(scene.image, scene, SyntheticScenes(1, (64, 64)).names).any()
