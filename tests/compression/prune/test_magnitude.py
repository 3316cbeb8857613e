"""Masks by hand, the schedule, and training with plain `fit` and with our own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.prune.magnitude import (  # noqa: E402
    KeepZeros,
    MagnitudePruning,
    PolynomialSchedule,
    keep_mask,
    prunable_kernels,
    strip,
)
from edgeheads.compression.prune.pattern import parse_pattern  # noqa: E402
from edgeheads.compression.prune.sparsity import file_size, layer_sparsity  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402


def test_schedule_by_hand() -> None:
    schedule = PolynomialSchedule(final=0.8, begin=10, end=30, every=5)
    assert schedule.sparsity(9) == 0
    assert schedule.sparsity(10) == 0
    assert schedule.sparsity(20) == pytest.approx(0.8 - 0.8 / 8)
    assert schedule.sparsity(30) == schedule.sparsity(99) == 0.8
    assert [step for step in range(40) if schedule.due(step)] == [10, 15, 20, 25, 30]


def test_unstructured_mask_by_hand() -> None:
    kernel = np.array([[1.0, -5.0], [0.5, 2.0]])
    expected = [[False, True], [False, True]]
    np.testing.assert_array_equal(keep_mask(kernel, 0.5, parse_pattern("unstructured")), expected)


def test_two_of_four_by_hand() -> None:
    column = np.array([[4.0], [1.0], [-3.0], [2.0], [9.0], [8.0], [7.0], [6.0], [0.1]])
    keep = keep_mask(column, 0.5, parse_pattern("2:4"))[:, 0]
    # The last weight has no group of four.
    np.testing.assert_array_equal(keep, [1, 0, 1, 0, 1, 1, 0, 0, 1])
    half = keep_mask(column, 0.25, parse_pattern("2:4"))[:, 0]
    np.testing.assert_array_equal(half, [1, 0, 1, 0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("text", ["2:4", "4:8", "1:4"])
def test_each_group_has_exactly_n_weights(text: str) -> None:
    pattern = parse_pattern(text)
    kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 5))
    keep = keep_mask(kernel, 1 - pattern.rows / pattern.columns, pattern)
    groups = keep.reshape(-1, pattern.columns, 5)
    assert (groups.sum(axis=1) == pattern.rows).all()


def test_blocks_go_as_a_whole() -> None:
    kernel = np.array([[1.0, 9], [1, 9], [5, 0], [5, 0], [3, 3]])
    keep = keep_mask(kernel, 0.5, parse_pattern("2x1"))
    np.testing.assert_array_equal(keep, [[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize("text", ["", "4:4", "0:4", "1x1", "half", "2:", "-1:4"])
def test_patterns_that_make_no_sense(text: str) -> None:
    with pytest.raises(EdgeheadsError, match=r"pattern must be unstructured, N:M with 0 < N < M"):
        parse_pattern(text)


def network() -> Any:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv")(image)
    x = keras.layers.DepthwiseConv2D(3, name="depth")(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(1, name="out")(keras.layers.Flatten()(x)))


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8, 8, 4)).astype("float32"), rng.normal(size=(32, 1))


def sparsities(model: Any) -> dict[str, float]:
    return {one.name: one.zeros / one.weights for one in layer_sparsity(model)}


def test_fit_reaches_the_sparsity_and_it_survives_saving(tmp_path: Path) -> None:
    model = network()
    model.compile("adam", "mse")
    pruning = MagnitudePruning(
        model, PolynomialSchedule(0.75, end=6, every=2), "unstructured", skip=("out",)
    )
    model.fit(*batch(), batch_size=4, epochs=2, verbose=0, callbacks=[pruning])
    assert pruning.step == 16
    assert sparsities(model) == {"conv": 0.75, "out": 0.0}
    model.save(tmp_path / "sparse.keras")
    again = keras.saving.load_model(tmp_path / "sparse.keras")
    zeros = np.array(again.get_layer("conv").kernel) == 0
    again.compile("adam", "mse")
    again.fit(*batch(), batch_size=4, verbose=0, callbacks=[KeepZeros(again)])
    np.testing.assert_array_equal(np.array(again.get_layer("conv").kernel) == 0, zeros)
    assert not np.allclose(again.get_layer("conv").kernel, model.get_layer("conv").kernel)


def test_without_the_callback_the_zeros_are_lost() -> None:
    model = network()
    model.compile("adam", "mse")
    pruning = MagnitudePruning(model, PolynomialSchedule(0.5, end=1, every=1), "2:4")
    model.fit(*batch(), batch_size=8, verbose=0, callbacks=[pruning])
    assert sparsities(model)["conv"] == 0.5
    model.fit(*batch(), batch_size=8, verbose=0)
    assert sparsities(model)["conv"] == 0
    stripped = strip(model, pruning)
    assert sparsities(stripped)["conv"] == 0.5
    assert not stripped.compiled
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    with pytest.raises(EdgeheadsError, match=r"the masks are of another model"):
        strip(other, pruning)


def test_more_zeros_than_the_pattern_has_are_refused() -> None:
    with pytest.raises(EdgeheadsError, match=r"pattern 2:4 has 50% zeros at most, received .* 80%"):
        MagnitudePruning(network(), PolynomialSchedule(0.8, end=1), "2:4")
    with pytest.raises(EdgeheadsError, match=r"0 <= initial <= final < 1, received .* final 1.0"):
        PolynomialSchedule(1.0, end=1)
    with pytest.raises(EdgeheadsError, match=r"needs 0 <= begin <= end"):
        PolynomialSchedule(0.5, begin=3, end=1)
    image = keras.Input((4,))
    with pytest.raises(EdgeheadsError, match=r"has no convolution and no dense layer to prune"):
        KeepZeros(keras.Model(image, keras.layers.ReLU()(image)))


def test_zeros_do_not_make_a_file_smaller_but_its_zip() -> None:
    noise = np.random.default_rng(0).normal(size=1000).astype("float32")
    dense, sparse = file_size(noise.tobytes()), file_size((noise * (noise > 1)).tobytes())
    assert dense.raw == sparse.raw == 4000
    assert sparse.zipped < 0.4 * dense.zipped


def test_our_training_keeps_the_zeros_through_averages_and_validation(tmp_path: Path) -> None:
    from conftest import tiny_recipe
    from edgeheads.progress import SilentProgress
    from edgeheads.tasks import get_task
    from edgeheads.train import read_training_data, train

    recipe = tiny_recipe(
        **{
            "prune.sparsity": 0.5,
            "prune.pattern": "4x1",
            "training.steps": 6,
            "training.ema_decay": 0.9,
            "data.train_samples": 16,
            "training.validation_fraction": 0.3,
            "training.validations": 6,
        }
    )
    task = get_task("depth", recipe.head.options)
    data = read_training_data(recipe, task, SilentProgress())
    edge = train(recipe, task, data, tmp_path, SilentProgress())
    found = layer_sparsity(edge.model)
    assert all(abs(one.zeros - 0.5 * one.weights) <= 4 * 16 for one in found)
    assert 0.4 < sum(one.zeros for one in found) / sum(one.weights for one in found) < 0.6
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert [one.zeros for one in layer_sparsity(again)] == [one.zeros for one in found]


def test_layers_of_one_name_in_two_models_inside_are_both_pruned() -> None:
    def part(name: str) -> Any:
        image = keras.Input((4, 4, 8))
        return keras.Model(image, keras.layers.Conv2D(8, 1, name="conv")(image), name=name)

    image = keras.Input((4, 4, 8))
    model = keras.Model(image, part("second")(part("first")(image)))
    assert list(prunable_kernels(model)) == ["conv", "conv_again"]
    pruning = MagnitudePruning(model, PolynomialSchedule(0.5, end=1))
    pruning.update(0.5)
    pruning.apply()
    assert [(one.zeros, one.weights) for one in layer_sparsity(model)] == [(32, 64)] * 2
    again = strip(model, pruning)
    assert [one.zeros for one in layer_sparsity(again)] == [32, 32]
    more = keras.Model(image, keras.layers.Conv2D(8, 1, name="last")(model(image)))
    pruning = MagnitudePruning(more, PolynomialSchedule(0.75, end=1), skip=("conv",))
    pruning.update(0.75)
    pruning.apply()
    assert {one.name: one.zeros for one in layer_sparsity(more)} == {
        "conv": 32,
        "conv_again": 32,
        "last": 48,
    }


def test_a_pattern_lies_along_the_inputs_of_a_transposed_kernel() -> None:
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 8))
    layer = keras.layers.Conv2DTranspose(3, 2, name="up")
    model = keras.Model(image, layer(image))
    pruning = MagnitudePruning(model, PolynomialSchedule(0.5, end=1), "2:4")
    pruning.update(0.5)
    mask = pruning.masks["up"]  # [height, width, outputs, inputs]
    assert mask.shape == (2, 2, 3, 8)
    assert (mask.reshape(2, 2, 3, 2, 4).sum(axis=-1) == 2).all()
