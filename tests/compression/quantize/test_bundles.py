"""Bundles of every scheme: made by a recipe, verified, scored, and used on a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeheads.bundle import Bundle
from edgeheads.compression.quantize.schemes import SCHEMES, get_scheme
from edgeheads.device import DeviceProfile, Quantization
from edgeheads.errors import EdgeheadsError
from edgeheads.evaluate import bundle_predictor
from edgeheads.export.flatgraph import FlatGraph
from edgeheads.runtime import DeviceSession

pytest.importorskip("tensorflow")

from conftest import QUICK_BENCH, tiny_recipe
from edgeheads.convert import convert
from edgeheads.verify import golden_repeats

if TYPE_CHECKING:
    from pathlib import Path

    from edgeheads.convert import ConvertResult

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ConvertResult:
    recipe = tiny_recipe(**{"export.precisions": list(SCHEMES), "data.train_samples": 16})
    folder = tmp_path_factory.mktemp("schemes") / "run"
    return convert(recipe, folder, bench_settings=QUICK_BENCH)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_bundle_of_each_scheme(name: str, made: ConvertResult) -> None:
    assert [one for one in made.checks[name] if not one.passed] == []
    scheme = get_scheme(name)
    bundle = Bundle(made.folder / name)
    assert bundle.precision == name
    assert {one.dtype for one in (bundle.contract.image.tensor, *bundle.contract.outputs)} == {
        scheme.io
    }
    scores = made.evaluations[name]["metrics"]
    assert scores["abs_rel"] == pytest.approx(made.float_scores["metrics"]["abs_rel"], rel=0.1)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with DeviceSession() as session:
        assert all(one.passed for one in golden_repeats(bundle, session))
        [found] = bundle_predictor(bundle, session)([image])
    assert ((found["depth"] >= 0.3) & (found["depth"] <= 10.1)).all()


def test_integers_throughout_but_for_the_ends(made: ConvertResult) -> None:
    """A float layer in the middle would be found; what converts floats at the ends is allowed."""
    checks = {one.name: one for one in made.checks["int8-float-io"]}
    assert checks["every node computes in integers"].passed
    assert "every node computes in integers" not in {one.name for one in made.checks["dynamic"]}


def test_16_bits_are_not_delegated_and_it_says_so(made: ConvertResult) -> None:
    [check] = [one for one in made.checks["int16x8"] if one.name == "delegated"]
    assert check.detail.endswith("nodes; xnnpack does not compute in 16-bit integers")
    assert check.detail.startswith("0 of ")


def test_a_device_of_one_scale_gets_one(tmp_path: Path) -> None:
    """And the recipe's calibration is what measures; the report has the doctor's findings."""
    recipe = tiny_recipe(
        **{"export.precisions": ["int8"], "export.calibration": "min-max", "training.steps": 1}
    )
    for weights, single in (("per-tensor", True), ("any", False)):
        profile = DeviceProfile(
            name="host", title="This machine", quantization=Quantization(weights=weights)
        )
        found = convert(recipe, tmp_path / weights, profile=profile, bench_settings=QUICK_BENCH)
        graph = FlatGraph(found.bundles["int8"].model_path.read_bytes())
        scales = [
            graph.scales(int(one.inputs[1])).size
            for one in graph.operations
            if graph.kind(one) == "CONV_2D"
        ]
        assert (max(scales) == 1) is single
        assert found.doctor is not None
        warned = [one.check for one in found.doctor.findings if one.severity == "warning"]
        assert "count" in warned


def test_one_image_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = tiny_recipe(**{"export.calibration_samples": 1, "training.steps": 1})
    with pytest.raises(EdgeheadsError, match="calibration images, count: there is one image"):
        convert(recipe, tmp_path / "run", bench_settings=QUICK_BENCH)
    assert list((tmp_path / "run").iterdir()) == []
