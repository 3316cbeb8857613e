"""int8 results of x86 and aarch64 kernels, per task: XNNPACK's agree, the interpreter's do not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")

from compare import CPUS, compare, emulated_session

from conftest import QUICK_BENCH
from edgeheads.bundle import Bundle
from edgeheads.convert import convert
from edgeheads.recipe import list_recipes, load_recipe
from edgeheads.runtime import DeviceSession

# One recipe per task, of those with the same backbone.
RECIPES = [name for name in list_recipes() if "mobilenet_v2_0.35" in name]

# The first is what `edgeheads verify` allows between machines. The interpreter's own kernels round
# otherwise on each architecture: a bound on damage, not on rounding.
LARGEST_P99_STEPS = {"xnnpack": 2, "none": 64}


@pytest.fixture(scope="module", params=list(product(CPUS, ("xnnpack", "none"))))
def emulated(request: pytest.FixtureRequest) -> Iterator[DeviceSession]:
    folder = os.environ.get("EDGEHEADS_ARM64")
    if folder is None or not Path(folder, f"python-{request.param[0]}").is_file():
        pytest.skip("needs EDGEHEADS_ARM64=FOLDER, made by: tests/arm64/setup.sh FOLDER")
    with emulated_session(Path(folder), *request.param) as session:
        yield session


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """Convert a recipe's small sister, once for all processors."""

    @cache
    def make(name: str) -> Bundle:
        recipe = load_recipe(name).with_values(
            **{
                "input_size": 64,
                "data.train_samples": 16,
                "data.test_samples": 4,
                "training.steps": 20,
                "training.batch_size": 4,
                "export.precisions": ["int8"],
                "export.calibration_samples": 16,
            }
        )
        folder = tmp_path_factory.mktemp("arm64") / "run"
        return convert(recipe, folder, bench_settings=QUICK_BENCH).bundles["int8"]

    return make


@pytest.mark.arm64
@pytest.mark.parametrize("name", RECIPES)
def test_int8_outputs_stay_within_steps(
    name: str, emulated: DeviceSession, int8_bundle: Callable[[str], Bundle]
) -> None:
    for one in compare(int8_bundle(name), emulated):
        assert one.p99_steps <= LARGEST_P99_STEPS[emulated.profile.delegate], one
