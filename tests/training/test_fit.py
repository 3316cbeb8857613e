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
from edgeheads.training.fit import Training, fit  # noqa: E402
from edgeheads.training.optimizer import Optimization, plan_phases  # noqa: E402

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


def copy_of(model: keras.Model) -> keras.Model:
    other = tiny_model()
    other.set_weights(model.get_weights())
    return other


def test_a_window_is_those_very_batches() -> None:
    window = batches(6).window(2, 3)
    assert window.num_batches == 3
    for index in range(3):
        np.testing.assert_array_equal(window[index][0], batches(6)[2 + index][0])


def test_phases_share_the_steps() -> None:
    frozen, fine = plan_phases(10, 0.3)
    assert (frozen.frozen, frozen.first, frozen.steps, frozen.end) == (True, 0, 3, 3)
    assert (fine.frozen, fine.first, fine.steps, fine.end) == (False, 3, 7, 10)
    assert [phase.steps for phase in plan_phases(10, 0.0)] == [10]
    # Never all of them, and never none that is called a phase.
    assert [phase.steps for phase in plan_phases(2, 0.99)] == [1, 1]
    assert [phase.steps for phase in plan_phases(1, 0.99)] == [1]


def test_each_phase_warms_up_and_decays_on_its_own() -> None:
    """Peak 1 after 1 of 5 steps, then a cosine over 4: 1, 0.854, 0.5, 0.146."""
    options = Optimization(1.0, warmup_fraction=0.2, frozen_fraction=0.5)
    model = tiny_model()
    training = Training(model, model, batches(10), TASK.loss, options)
    rates = [training.learning_rate(step) for step in range(10)]
    assert rates[:5] == rates[5:]
    assert rates[:5] == pytest.approx([0.0, 1.0, 0.8536, 0.5, 0.1464], abs=1e-4)


def test_a_frozen_backbone_keeps_weights_and_statistics_then_moves() -> None:
    keras.utils.set_random_seed(0)
    model = tiny_model()
    backbone = model.layers[1:3]
    start = [np.array(one) for layer in backbone for one in layer.get_weights()]
    head = np.array(model.layers[4].kernel)
    options = Optimization(1e-2, frozen_fraction=0.5)
    seen: list[list[np.ndarray]] = []

    class Watched(Training):
        def _run_phase(self, *arguments) -> None:
            super()._run_phase(*arguments)
            seen.append([np.array(one) for layer in backbone for one in layer.get_weights()])

    Watched(model, model, batches(6), TASK.loss, options, backbone=backbone).run()
    for before, after in zip(start, seen[0], strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(start, seen[1], strict=True):
        assert (before != after).any()
    assert np.abs(np.array(model.layers[4].kernel) - head).max() > 1e-3
    assert all(layer.trainable for layer in model.layers)


def test_the_backbone_moves_at_its_share_of_the_rate() -> None:
    """Adam's first step is the learning rate long, whatever the gradient."""
    keras.utils.set_random_seed(0)
    model = tiny_model()
    first, last = np.array(model.layers[1].kernel), np.array(model.layers[4].kernel)
    options = Optimization(1e-2, warmup_fraction=0.0, backbone_rate=0.1)
    Training(model, model, batches(1), TASK.loss, options, backbone=model.layers[1:3]).run()
    moved = np.median(np.abs(np.array(model.layers[1].kernel) - first))
    assert moved == pytest.approx(1e-3, rel=0.05)
    moved = np.median(np.abs(np.array(model.layers[4].kernel) - last))
    assert moved == pytest.approx(1e-2, rel=0.05)


def test_the_average_holds_what_the_weights_were() -> None:
    """Decays of three steps: min(0.5, 1/10), min(0.5, 2/11), min(0.5, 3/12)."""
    keras.utils.set_random_seed(0)
    start = tiny_model()
    # Weights after 1, 2 and 3 of the same 3 steps: without an average, stopped early.
    values = [start.get_weights()]
    for steps in (1, 2, 3):
        model = copy_of(start)
        training = Training(model, model, batches(3), TASK.loss, Optimization(1e-2))
        stop_after(training, steps)
        values.append(model.get_weights())
    average = values[0]
    for decay, now in zip((1 / 10, 2 / 11, 3 / 12), values[1:], strict=True):
        average = [decay * a + (1 - decay) * b for a, b in zip(average, now, strict=True)]
    wanted, trainee = copy_of(start), copy_of(start)
    options = Optimization(1e-2, ema_decay=0.5)
    Training(wanted, trainee, batches(3), TASK.loss, options).run()
    for expected, received in zip(average, wanted.get_weights(), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)
    # Statistics of batch norm included, and the weights themselves are those without an average.
    assert any((a != b).any() for a, b in zip(wanted.get_weights(), values[3], strict=True))
    for expected, received in zip(values[3], trainee.get_weights(), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-6)


def stop_after(training: Training, steps: int) -> None:
    """Run the first steps of a training, as its schedule has them."""

    class Judge:
        def __init__(self) -> None:
            self.steps = frozenset([steps])
            self.patience = 1
            self.judge = TASK.metrics[0]

        def __call__(self) -> dict[str, float]:
            return {self.judge.name: float("nan")}

    # The second of two validations without a better value ends it.
    judge = Judge()
    training.history.add_validation({judge.judge.name: 0.0}, judge.judge)
    training.validator = judge  # type: ignore[assignment]
    training.run()
    assert training.history.step == steps


class Weighted(keras.layers.Layer):
    """Two losses with learned weights (Kendall et al. 2018), over nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = self.add_weight(shape=(), initializer="zeros", name="log_variance")

    def call(self, targets, outputs):
        depth = TASK.loss({"depth": targets["depth/depth"]}, outputs["depth"])
        return keras.ops.exp(-self.log_variance) * depth + self.log_variance


class Nested(TrainingBatches):
    def __getitem__(self, index: int):
        images, targets = super().__getitem__(index)
        return images, {f"depth/{name}": array for name, array in targets.items()}


def test_a_loss_with_variables_is_trained_on_nested_outputs() -> None:
    keras.utils.set_random_seed(0)
    flat = tiny_model()
    model = keras.Model(flat.input, {"depth": flat.output})
    stream = batches(8)
    stream.__class__ = Nested
    loss = Weighted()
    losses = fit(model, stream, loss, learning_rate=1e-2)
    assert len(losses) == 8
    assert abs(float(keras.ops.convert_to_numpy(loss.log_variance))) > 0.01


def test_clipping_bounds_what_a_step_moves() -> None:
    """AdamW does not see the scale of gradients, but its memory sees one that is cut."""
    keras.utils.set_random_seed(0)
    start = tiny_model()
    ends = []
    for clip_norm in (0.0, 1e6, 1e-3):
        model = copy_of(start)
        options = Optimization(1e-2, clip_norm=clip_norm)
        Training(model, model, batches(4), TASK.loss, options).run()
        ends.append(np.concatenate([one.ravel() for one in model.get_weights()]))
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-6)
    assert np.abs(ends[2] - ends[0]).max() > 1e-4
