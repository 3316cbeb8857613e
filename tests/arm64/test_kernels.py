"""int8 results of x86 and aarch64 kernels, per task: close, and rarely the same to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="module", params=list(product(CPUS, ("xnnpack", "none"))))
def emulated(request: pytest.FixtureRequest) -> Iterator[DeviceSession]:
    folder = os.environ.get("EDGEHEADS_ARM64")
    if folder is None or not Path(folder, f"python-{request.param[0]}").is_file():
        pytest.skip("needs EDGEHEADS_ARM64=FOLDER, made by: tests/arm64/setup.sh FOLDER")
    with emulated_session(Path(folder), *request.param) as session:
        yield session


@pytest.mark.arm64
@pytest.mark.parametrize("name", RECIPES)
def test_int8_outputs_stay_within_steps(name: str, emulated: DeviceSession, tmp_path: Path) -> None:
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
    convert(recipe, tmp_path / "run", bench_settings=QUICK_BENCH)
    for one in compare(Bundle(tmp_path / "run" / "int8"), emulated):
        print(f"{recipe.task} {one}")
        # The same bound that `edgeheads verify` sets on the golden images of another machine.
        assert one.p99_steps <= 2, one
