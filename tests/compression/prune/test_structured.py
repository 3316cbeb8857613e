"""Importance, choice and targets, by hand and as properties."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.compression.macs import count_macs, count_parameters  # noqa: E402
from edgeheads.compression.prune.channels import Channels  # noqa: E402
from edgeheads.compression.prune.importance import (  # noqa: E402
    IMPORTANCES,
    importance,
    loss_gradients,
)
from edgeheads.compression.prune.select import Limits, choose  # noqa: E402
from edgeheads.compression.prune.structured import (  # noqa: E402
    Criterion,
    prune_channels,
    prune_in_rounds,
)
from edgeheads.compression.prune.target import Target, parse_target  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402

L = keras.layers
ONE = Limits(multiple=1)


def two_convolutions(widths: tuple[int, int] = (3, 2)) -> Any:
    image = keras.Input((4, 4, 1))
    x = L.Conv2D(widths[0], 1, name="a")(image)
    x = L.ReLU()(L.BatchNormalization(name="norm", epsilon=0.0)(x))
    return keras.Model(image, L.Conv2D(widths[1], 1, use_bias=False, name="b")(x))


def network() -> Any:
    keras.utils.set_random_seed(1)
    x = image = keras.Input((16, 16, 3))
    x = L.Conv2D(16, 3, strides=2, padding="same", name="stem")(x)
    for index in range(2):
        y = L.Conv2D(48, 1, name=f"expand_{index}")(x)
        y = L.ReLU()(L.BatchNormalization()(y))
        y = L.DepthwiseConv2D(3, padding="same", name=f"depth_{index}")(y)
        x = L.Add()([x, L.Conv2D(16, 1, name=f"contract_{index}")(y)])
    return keras.Model(image, L.Dense(5, name="logits")(L.GlobalAveragePooling2D()(x)))


def test_l1_l2_and_batch_norm_scale_by_hand() -> None:
    model = two_convolutions()
    model.get_layer("a").set_weights([np.array([[[[3.0, -1.0, 2.0]]]]), np.zeros(3)])
    norm = model.get_layer("norm")
    norm.gamma.assign([0.5, -4.0, 1.5])
    channels = Channels.follow(model)
    np.testing.assert_allclose(importance(channels, "l1"), np.array([3, 1, 2]) / 2)
    np.testing.assert_allclose(importance(channels, "l2", normalization="max"), [1, 1 / 3, 2 / 3])
    np.testing.assert_allclose(
        importance(channels, "bn_scale", normalization="none"), [0.5, 4.0, 1.5]
    )


def test_taylor_is_the_squared_change_of_the_loss() -> None:
    model = two_convolutions((2, 1))
    model.get_layer("a").set_weights([np.array([[[[1.0, 1.0]]]]), np.zeros(2)])
    model.get_layer("norm").set_weights(
        [np.array([2.0, 1.0]), np.array([0.0, 1.0]), np.zeros(2), np.ones(2)]
    )
    model.get_layer("b").set_weights([np.array([[[[1.0], [3.0]]]])])
    image = np.full((1, 4, 4, 1), 2.0, np.float32)
    # The output is linear in each channel, and the loss is its mean: the first order is exact.
    # For 2 it is 1 * (2 * 2) + 3 * (1 * 2 + 1), for 0 it is 0 + 3 * 1.
    gradients = loss_gradients(lambda _, y: keras.ops.mean(y), [(image, None), (0 * image, None)])
    scores = importance(Channels.follow(model), "taylor", normalization="none", gradients=gradients)
    np.testing.assert_allclose(scores, [(4**2 + 0) / 2, (9**2 + 3**2) / 2], rtol=1e-5)


def test_the_least_important_channels_go_first_and_counts_are_rounded_up() -> None:
    channels = Channels.follow(two_convolutions((20, 2)))
    scores = np.arange(20.0)
    removed = choose(channels, scores, 0.5, Limits(multiple=8))
    assert removed.sum() == 4  # 10 would stay, 16 is the next multiple of 8
    assert removed[:4].all()
    assert choose(channels, scores, 1.0, Limits(multiple=8)).sum() == 12
    assert choose(channels, scores, 1.0, Limits(multiple=1, min_fraction=0.25)).sum() == 15
    assert choose(channels, scores, 1.0, Limits(multiple=1, min_fraction=0.01)).sum() == 19


def test_per_layer_takes_the_same_share_of_each_and_global_does_not() -> None:
    model = network()
    channels = Channels.follow(model)
    scores = np.linspace(0, 1, channels.count)
    for scope, equal in (("layer", True), ("global", False)):
        removed = choose(channels, scores, 0.5, Limits(scope, multiple=1))
        shares = {float(removed[group.units].mean()) for group in channels.groups}
        assert (shares == {0.5}) is equal


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_more_is_removed_the_larger_the_amount(scope: str) -> None:
    channels = Channels.follow(network())
    scores = importance(channels, "l1")
    last = channels.none
    for amount in np.linspace(0, 1, 23):
        removed = choose(channels, scores, float(amount), Limits(scope))
        assert not (last & ~removed).any()
        last = removed


@pytest.mark.parametrize("kind", list(IMPORTANCES))
def test_half_the_macs_with_each_importance(kind: str) -> None:
    model = network()
    before = [np.array(one) for one in model.get_weights()]
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    gradients = loss_gradients(
        lambda _, y: keras.ops.mean(keras.ops.square(y)), [(batch, None)] * 2
    )
    limits = Limits(multiple=4)
    pruned = prune_channels(model, "macs=0.5", Criterion(kind, limits=limits, gradients=gradients))
    assert pruned.macs == (count_macs(model), count_macs(pruned.model))
    assert 0.35 * pruned.macs[0] < pruned.macs[1] <= 0.5 * pruned.macs[0]
    assert pruned.parameters == (count_parameters(model), count_parameters(pruned.model))
    assert pruned.model.output.shape == model.output.shape
    assert all(after % 4 == 0 for _, after in pruned.widths.values())
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert np.isfinite(pruned.model.predict(batch, verbose=0)).all()


def test_parameters_as_an_amount() -> None:
    model = network()
    wanted = count_parameters(model) // 2
    pruned = prune_channels(
        model, Target("parameters", wanted, relative=False), Criterion(limits=ONE)
    )
    assert 0.9 * wanted < count_parameters(pruned.model) <= wanted


def test_rounds_approach_the_target_in_equal_ratios_and_keep_what_was_trained() -> None:
    model = network()
    shares = []
    for pruned in prune_in_rounds(model, "macs=0.25", 2, Criterion(limits=ONE)):
        shares.append(pruned.macs[1] / pruned.macs[0])
        logits = pruned.model.get_layer("logits")
        if len(shares) == 1:
            logits.bias.assign([1, 2, 3, 4, 5])
    assert shares[0] == pytest.approx(0.5, abs=0.03)
    assert shares[1] == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(logits.bias, [1, 2, 3, 4, 5])
    assert pruned.macs[0] == count_macs(model)
    assert pruned.widths["expand_0"][0] == 48


def chain() -> Any:
    keras.utils.set_random_seed(1)
    x = image = keras.Input((16, 16, 3))
    for index, width in enumerate((16, 24, 32)):
        x = L.Conv2D(width, 3, padding="same", name=f"c{index}")(x)
    return keras.Model(image, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def test_rounds_keep_the_share_of_the_original_that_one_round_would() -> None:
    criterion = Criterion(normalization="none", limits=Limits(multiple=1, min_fraction=0.5))
    *_, pruned = prune_in_rounds(chain(), "macs=0.35", 3, criterion)
    assert pruned.macs[1] <= 0.35 * pruned.macs[0]
    assert all(after >= before / 2 for before, after in pruned.widths.values()), pruned.widths


def test_widths_are_those_of_the_original_and_of_the_last_round() -> None:
    model = chain()
    changed = []
    for pruned in prune_in_rounds(model, "macs=0.2", 4, Criterion(normalization="none")):
        widths = {
            name: (model.get_layer(name).filters, pruned.model.get_layer(name).filters)
            for name in ("c0", "c1", "c2")
        }
        assert pruned.widths == {name: pair for name, pair in widths.items() if len(set(pair)) > 1}
        changed.append(len(pruned.widths))
    assert changed == [1, 2, 2, 3]  # one loses channels in the middle rounds only


def test_taylor_does_not_care_what_is_frozen() -> None:
    model = network()
    batch = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    gradients = loss_gradients(lambda _, y: keras.ops.mean(keras.ops.square(y)), [(batch, None)])
    scores = []
    for trainable in (True, False):
        model.trainable = trainable
        frozen = keras.models.clone_model(model)  # as it is loaded from a file
        frozen.set_weights(model.get_weights())
        scores.append(importance(Channels.follow(frozen), "taylor", gradients=gradients))
    assert scores[0].min() > 0
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)


def test_batch_norms_that_are_missing_keep_a_target_out_of_reach_before_the_first_round() -> None:
    # Channels of the other convolutions have no scale to be judged by, and stay.
    rounds = prune_in_rounds(network(), "macs=0.15", 2, Criterion("bn_scale", limits=ONE))
    with pytest.raises(EdgeheadsError, match=r"target macs=0.15 cannot be reached"):
        next(rounds)


def test_a_target_out_of_reach_says_what_is_in_reach() -> None:
    model = network()
    with pytest.raises(EdgeheadsError, match=r"target macs=0.1 cannot be reached") as error:
        prune_channels(model, "macs=0.1", Criterion(limits=Limits(min_fraction=0.5)))
    share = float(re.search(r"ask for macs=([0-9.]+) or more", str(error.value))[1])  # type: ignore[index]
    pruned = prune_channels(model, f"macs={share}", Criterion(limits=Limits(min_fraction=0.5)))
    assert pruned.macs[1] <= share * pruned.macs[0]
    with pytest.raises(EdgeheadsError, match=r"cannot be reached"):
        next(prune_in_rounds(model, "macs=0.1", 3, Criterion(limits=Limits(min_fraction=0.5))))


def test_models_that_cannot_be_pruned_are_refused() -> None:
    model = network()
    model.get_layer("stem").bias.assign(np.full(16, np.nan))
    with pytest.raises(EdgeheadsError, match=r"holds NaN or infinite values in stem/bias; train"):
        prune_channels(model, "macs=0.5")
    image = keras.Input((4, 4, 1))
    single = keras.Model(image, L.Conv2D(8, 1)(image))
    with pytest.raises(EdgeheadsError, match=r"no channel of .* can be removed: the outputs'"):
        prune_channels(single, "macs=0.5")

    class Own(keras.Model):
        pass

    with pytest.raises(EdgeheadsError, match=r"must be a functional Keras model, received Own"):
        prune_channels(Own(), "macs=0.5")
    with pytest.raises(EdgeheadsError, match=r"needs gradients of a loss on data, received none"):
        prune_channels(network(), "macs=0.5", Criterion("taylor"))
    with pytest.raises(EdgeheadsError, match=r"unknown importance 'l3'; did you mean"):
        prune_channels(network(), "macs=0.5", Criterion("l3"))
    plain = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(8, 1), L.Conv2D(2, 1)])
    with pytest.raises(EdgeheadsError, match=r"bn_scale needs batch norm layers"):
        prune_channels(plain, "macs=0.5", Criterion("bn_scale"))
    with pytest.raises(EdgeheadsError, match=r"target size=0.5 is measured on a file"):
        prune_channels(network(), "size=0.5")


def test_sequential_and_nested_models_are_laid_flat() -> None:
    plain = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(8, 1), L.Conv2D(2, 1)])
    image = keras.Input((4, 4, 1))
    for model in (plain, keras.Model(image, L.Dense(3)(plain(image)))):
        assert prune_channels(model, "macs=0.6", Criterion(limits=ONE)).macs[1] > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs=0.5", Target("macs", 0.5)),
        ("parameters=25%", Target("parameters", 0.25)),
        ("macs=20M", Target("macs", 20e6, relative=False)),
        ("size=300kB", Target("size", 300e3, relative=False)),
        ("latency=2.5ms", Target("latency", 2.5, relative=False)),
        ("macs=12345", Target("macs", 12345, relative=False)),
    ],
)
def test_targets_are_read(text: str, expected: Target) -> None:
    target = parse_target(text)
    assert (target.kind, target.relative) == (expected.kind, expected.relative)
    assert target.value == pytest.approx(expected.value)
    assert parse_target(target.text) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half", r"must be like macs=0.5, .* received 'half'"),
        ("mac=0.5", r"unknown target 'mac'; did you mean macs\?"),
        ("macs=0", r"must be a share above 0 and at most 1"),
        ("macs=150%", r"must be a share above 0 and at most 1"),
        ("latency=3", r"must be a share such as latency=0.5, or have one of the units ms, us, s"),
        ("size=3GB", r"one of the units B, kB, MB"),
    ],
)
def test_targets_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(EdgeheadsError, match=message):
        parse_target(text)


def test_limits_are_checked() -> None:
    for options, message in (
        ({"scope": "all"}, r"unknown scope 'all'"),
        ({"multiple": 0}, r"multiple must be at least 1, received 0"),
        ({"min_fraction": 0.0}, r"min_fraction must be in \(0, 1\], received 0.0"),
    ):
        with pytest.raises(EdgeheadsError, match=message):
            Limits(**options)  # type: ignore[arg-type]
