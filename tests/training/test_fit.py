"""Training: the loop around Keras' own."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.backbones import InputScaling  # noqa: E402
from edgeheads.data.scenes.labels import NAMES  # noqa: E402
from edgeheads.data.synthetic import SyntheticScenes  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.tasks import get_task  # noqa: E402
from edgeheads.training.batches import TrainingBatches  # noqa: E402
from edgeheads.training.fit import fit  # noqa: E402

TASK = get_task("depth")


def tiny_model() -> keras.Model:
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = keras.layers.BatchNormalization(momentum=0.999)(x)
    x = keras.layers.Conv2D(1, 3, padding="same", activation="softplus")(keras.layers.ReLU()(x))
    depth = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(image, {"depth": keras.layers.Rescaling(1.0, offset=0.1)(depth)})


def batches(steps: int = 4, seed: int = 0, augment: bool = True) -> TrainingBatches:
    return TrainingBatches(
        list(SyntheticScenes(6, (32, 32))),
        TASK,
        size=(32, 32),
        scaling=InputScaling.uniform(1 / 127.5, -1.0),
        decoding={},
        names=NAMES,
        steps=steps,
        batch_size=4,
        augmentations=TASK.augmentations if augment else (),
        seed=seed,
    )


def test_batch_is_the_same_every_time_and_another_with_another_seed() -> None:
    images, targets = batches()[3]
    again, targets_again = batches()[3]
    other, _ = batches(seed=1)[3]
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(targets["depth"], targets_again["depth"])
    assert not np.array_equal(images, other)


def test_batch_is_scaled_and_shaped_for_the_network() -> None:
    images, targets = batches(augment=False)[0]
    assert images.shape == (4, 32, 32, 3)
    assert targets["depth"].shape == (4, 32, 32, 1)
    assert -1 <= images.min() < images.max() <= 1


def test_every_pass_sees_every_sample_once() -> None:
    """6 samples, batches of 4: the first 12 positions are two whole passes."""
    stream = np.concatenate([batches(augment=False)[i][1]["depth"] for i in range(3)])
    for rounds in (stream[:6], stream[6:12]):
        assert len({round(float(depth.sum()), 2) for depth in rounds}) == 6


def test_loss_falls_and_statistics_are_usable_after_few_steps() -> None:
    keras.utils.set_random_seed(0)
    model = tiny_model()
    losses = fit(model, batches(40), TASK.loss, learning_rate=1e-2)
    assert len(losses) == 40
    assert losses[-1] < 0.8 * losses[0]
    norm = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    assert norm.momentum == pytest.approx(0.8)
    # Batch statistics and running ones give nearly the same output.
    images, _ = batches()[0]
    trained, inference = (
        np.asarray(model(images, training=mode)["depth"]) for mode in (True, False)
    )
    assert np.abs(trained - inference).mean() < 0.25 * trained.mean()


def test_divergence_is_an_error_with_the_step() -> None:
    model = tiny_model()
    model.layers[1].kernel.assign(np.full(model.layers[1].kernel.shape, np.nan))
    with pytest.raises(EdgeheadsError, match=r"training diverged: the loss is nan after 1 steps"):
        fit(model, batches(3), TASK.loss, learning_rate=1e-2)


def test_kernels_decay_and_biases_do_not() -> None:
    """With a learning rate of 0 to start from, one step shows nothing but the decay."""
    keras.utils.set_random_seed(0)
    model = tiny_model()
    last = model.layers[-3]
    last.bias.assign([1.0])
    kernel = np.asarray(last.kernel).copy()
    fit(model, batches(30), TASK.loss, learning_rate=1e-4, weight_decay=100.0)
    assert np.abs(np.asarray(last.kernel)).mean() < 0.95 * np.abs(kernel).mean()
    assert float(np.asarray(last.bias)[0]) > 0.99
