"""The pipeline, end to end on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from conftest import QUICK_BENCH, tiny_recipe
from edgeheads.bundle import Bundle
from edgeheads.device import load_device
from edgeheads.errors import EdgeheadsError

pytest.importorskip("tensorflow")

from edgeheads.compression.sensitivity.held_out import HeldOut
from edgeheads.convert import convert
from edgeheads.recipe import load_recipe
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Metric

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult

PRECISIONS = ("float32", "float16", "int8")


def test_there_is_a_bundle_per_precision_and_the_model(converted: ConvertResult) -> None:
    names = sorted(path.name for path in converted.folder.iterdir())
    assert names == ["float16", "float32", "int8", "model.keras", "recipe.yaml"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_file_is_verified(converted: ConvertResult, precision: str) -> None:
    failed = [check for check in converted.checks[precision] if not check.passed]
    assert failed == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_measurement_names_the_file(converted: ConvertResult, precision: str) -> None:
    bundle = converted.bundles[precision]
    for name in ("verification", "evaluation", "benchmark"):
        content = json.loads((bundle.folder / f"{name}.json").read_text())
        assert content["model_sha256"] == bundle.sha256
        assert content["device"] == "host"


def test_float_file_scores_what_the_model_scores(converted: ConvertResult) -> None:
    keras, file = converted.float_scores, converted.evaluations["float32"]
    assert file["metrics"] == pytest.approx(keras["metrics"], rel=1e-4)
    assert (
        file["counts"]
        == keras["counts"]
        == {
            "images": 3,
            "images_left_out": 0,
            "pixels": 3 * 64 * 64,
            "samples_skipped": 0,
            "label_problems": 0,
        }
    )
    assert file["baseline"] == converted.baseline


def test_int8_is_integer_from_pixel_to_output(converted: ConvertResult) -> None:
    contract = converted.bundles["int8"].contract
    assert contract.image.tensor.dtype == "int8"
    assert {spec.dtype for spec in contract.outputs} == {"int8"}
    # A sigmoid has a scale of 1/256 by definition: 256 depths between nearest and farthest.
    assert {spec.scale for spec in contract.outputs} == {1 / 256}
    assert contract.decoding == {
        "encoding": "log",
        "min_depth": pytest.approx(0.4),
        "max_depth": pytest.approx(10.0),
    }


def test_sizes_shrink(converted: ConvertResult) -> None:
    full, half, small = (converted.bundles[name].model_bytes for name in PRECISIONS)
    assert small < half < full


def test_the_saved_recipe_is_the_resolved_one(converted: ConvertResult) -> None:
    assert load_recipe(converted.folder / "recipe.yaml") == converted.recipe
    bundle = converted.bundles["int8"]
    assert load_recipe(bundle.folder / "recipe.yaml") == converted.recipe
    assert bundle.recipe == json.loads(json.dumps(converted.recipe.values()))


def test_the_recipe_in_a_bundle_reproduces_its_file(
    converted: ConvertResult, tmp_path: Path
) -> None:
    recipe = load_recipe(converted.bundles["int8"].folder / "recipe.yaml")
    again = convert(recipe, tmp_path / "again", bench_settings=QUICK_BENCH)
    for precision in PRECISIONS:
        assert again.bundles[precision].sha256 == converted.bundles[precision].sha256


def test_another_seed_gives_another_file(converted: ConvertResult, tmp_path: Path) -> None:
    recipe = tiny_recipe(seed=1, **{"export.precisions": ["float32"]})
    other = convert(recipe, tmp_path / "other", bench_settings=QUICK_BENCH)
    assert other.bundles["float32"].sha256 != converted.bundles["float32"].sha256


def test_trained_model_converts_to_the_same_file(converted: ConvertResult, tmp_path: Path) -> None:
    recipe = tiny_recipe(**{"export.precisions": ["int8"]})
    result = convert(
        recipe, tmp_path / "run", model_file=converted.model_path, bench_settings=QUICK_BENCH
    )
    assert result.bundles["int8"].sha256 == converted.bundles["int8"].sha256
    assert not (tmp_path / "run" / "model.keras").exists()


def test_model_of_stock_layers_in_metres_converts(tmp_path: Path) -> None:
    """A network that was not built here: it returns metres, and nothing has to be decoded."""
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(1, 3, padding="same", activation="softplus", bias_initializer="ones")(x)
    keras.Model(image, x).save(tmp_path / "own.keras")
    recipe = tiny_recipe(**{"export.precisions": ["float32"]})
    result = convert(
        recipe, tmp_path / "run", model_file=tmp_path / "own.keras", bench_settings=QUICK_BENCH
    )
    bundle = result.bundles["float32"]
    assert bundle.contract.decoding == {"encoding": "metres"}
    assert [spec.name for spec in bundle.contract.outputs] == ["depth"]
    assert all(check.passed for check in result.checks["float32"])


def save_model(path: Path, size: int = 64, channels: int = 1, poison: bool = False) -> Path:
    import keras

    image = keras.Input((size, size, 3))
    model = keras.Model(image, keras.layers.Conv2D(channels, 1, activation="softplus")(image))
    if poison:
        model.layers[1].kernel.assign(np.full(model.layers[1].kernel.shape, np.nan))
    model.save(path)
    return path


def save_sequential_without_input(path: Path) -> None:
    import keras

    keras.Sequential([keras.layers.Conv2D(1, 1)]).save(path)


def save_list_of_outputs(path: Path) -> None:
    import keras

    image = keras.Input((64, 64, 3))
    depth = keras.layers.Conv2D(1, 1)(image)
    keras.Model(image, [depth, depth]).save(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (save_sequential_without_input, r"must take one image of shape .* received \[\]; set"),
        (save_list_of_outputs, r"must return a map \[B, H, W, 1\] in metres"),
        (lambda path: path, r"a\.keras does not exist; give a \.keras file"),
        (lambda path: path.write_text("no"), r"a\.keras cannot be loaded \("),
        (lambda path: save_model(path, size=32), r"of shape \(None, 64, 64, 3\), as the recipe"),
        (lambda path: save_model(path, poison=True), "holds NaN or infinite values in"),
        (lambda path: save_model(path, channels=2), r"must return a map \[B, H, W, 1\] in metres"),
    ],
)
def test_model_that_cannot_be_converted(tmp_path: Path, make: object, words: str) -> None:
    make(tmp_path / "a.keras")  # type: ignore[operator]
    with pytest.raises(EdgeheadsError, match=words):
        convert(tiny_recipe(), tmp_path / "run", model_file=tmp_path / "a.keras")
    assert list((tmp_path / "run").iterdir()) == []


def test_model_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    import keras

    image = keras.Input((64, 64, 3))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x[..., :1])(image))
    model.save(tmp_path / "a.keras")
    with pytest.raises(EdgeheadsError, match=r"cannot be loaded \(.*[Ll]ambda"):
        convert(tiny_recipe(), tmp_path / "run", model_file=tmp_path / "a.keras")


def test_divergence_leaves_no_model_and_no_bundle(tmp_path: Path) -> None:
    recipe = tiny_recipe(**{"training.learning_rate": 1e30, "training.steps": 20})
    with pytest.raises(EdgeheadsError, match="training diverged: the loss is"):
        convert(recipe, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_unwritable_folder_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeheadsError, match=r"cannot write to .*choose another folder with --out"):
        convert(tiny_recipe(), tmp_path / "file" / "run")


def test_bundles_open(converted: ConvertResult) -> None:
    for bundle in converted.bundles.values():
        assert Bundle(bundle.folder).sha256 == bundle.sha256


def test_layers_stay_float_within_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: ConvertResult
) -> None:
    """The file that is scored first, int8 throughout, is over the budget; every other is within."""
    scored: list[bytes] = []

    def drop_of(self: HeldOut, content: bytes) -> float:
        scored.append(content)
        return 1.0 if len(scored) == 1 else 0.0

    monkeypatch.setattr(HeldOut, "drop_of", drop_of)
    changes = {"export.precisions": ["int8"], "export.max_drop": 50.0}
    recipe = tiny_recipe().with_values(**changes)
    result = convert(recipe, tmp_path, model_file=converted.model_path, bench_settings=QUICK_BENCH)
    assert result.mixed is not None
    assert (len(result.mixed.kept), result.mixed.max_drop) == (1, 0.5)
    assert result.mixed.metric == "AbsRel"
    bundle = result.bundles["int8"]
    stored = json.loads((bundle.folder / "mixed_precision.json").read_text())
    assert stored["kept_float"] == [result.mixed.kept[0].name]
    assert stored["model_sha256"] == bundle.sha256
    assert all(check.passed for check in result.checks["int8"])
    with DeviceSession() as session:
        ops = session.inspect(bundle.model_path)["ops"]
    assert any("float32" in str(one) for one in ops)


@pytest.mark.parametrize("fast_for", ["xnnpack", "xnnpack-amx"])
def test_files_that_are_fast_for_some_kernels_are_verified_and_score_the_same(
    tmp_path: Path, converted: ConvertResult, fast_for: str
) -> None:
    recipe = tiny_recipe().with_values(
        **{"export.precisions": ["int8"], "export.fast_for": fast_for}
    )
    result = convert(recipe, tmp_path, model_file=converted.model_path, bench_settings=QUICK_BENCH)
    assert [check for check in result.checks["int8"] if not check.passed] == []
    plain, fast = (one.evaluations["int8"]["metrics"]["abs_rel"] for one in (converted, result))
    assert fast == pytest.approx(plain, rel=0.02)


def test_integers_alone_and_mixed_precision_contradict_each_other(tmp_path: Path) -> None:
    recipe = tiny_recipe().with_values(**{"export.max_drop": 0.5})
    with pytest.raises(EdgeheadsError) as caught:
        convert(recipe, tmp_path / "no", profile=load_device("coral-usb"))
    assert str(caught.value) == (
        "mixed precision keeps layers in float32, and coral-usb runs int8 alone; leave "
        "export.max_drop (--mixed) out, or choose another device"
    )
    assert not (tmp_path / "no").exists()


def test_mixed_precision_is_of_an_int8_file(tmp_path: Path) -> None:
    changes = {"export.max_drop": 0.5, "export.precisions": ["float32", "int16x8"]}
    with pytest.raises(EdgeheadsError) as caught:
        convert(tiny_recipe().with_values(**changes), tmp_path / "no")
    assert str(caught.value) == (
        "mixed precision keeps layers of the int8 file float, and export.precisions has no int8, "
        "received float32, int16x8 with export.max_drop 0.5; add int8 (--precision), or leave "
        "export.max_drop (--mixed) out"
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("reference", [0.0, float("nan")])
def test_where_the_float_model_scores_nothing_no_budget_is_kept(reference: float) -> None:
    """A file could be no worse, so that int8 throughout would be within any budget."""

    class Scored(HeldOut):
        def __post_init__(self) -> None:
            self.metric = Metric("map", "mAP", "", True, 0, 1)
            self.reference = reference

    with DeviceSession() as session:
        scorer = Scored(None, None, [None] * 4, session)  # type: ignore[arg-type,list-item]
        with pytest.raises(EdgeheadsError) as caught:
            scorer.budget(0.5)
    assert str(caught.value) == (
        f"the float model scores {reference:g} (mAP) on the samples held out of training (4), so "
        "no drop can be judged; train it longer, or leave the budget out"
    )
    scorer.reference = 0.25
    assert scorer.budget(0.5) == 0.005


def test_a_graph_for_some_kernels_and_mixed_precision_exclude_each_other(tmp_path: Path) -> None:
    recipe = tiny_recipe().with_values(**{"export.max_drop": 0.5, "export.fast_for": "xnnpack"})
    with pytest.raises(EdgeheadsError, match="fast_for xnnpack changes the graph that mixed"):
        convert(recipe, tmp_path / "no")
