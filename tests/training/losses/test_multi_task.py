"""Weights of several losses, fixed and learned, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

keras = pytest.importorskip("keras")

from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.training.losses.multi_task import MultiTaskLoss  # noqa: E402


def mean_of(key):
    return lambda targets, outputs: keras.ops.mean(targets["t"] * outputs[key])


LOSSES = {"depth": mean_of("d"), "normals": mean_of("n")}
TARGETS = {"depth/t": np.float32([2.0]), "normals/t": np.float32([3.0])}
OUTPUTS = {"depth": {"d": np.float32([5.0])}, "normals": {"n": np.float32([7.0])}}


def value(loss):
    return float(keras.ops.convert_to_numpy(loss(TARGETS, OUTPUTS)))


def test_fixed_weights() -> None:
    loss = MultiTaskLoss(LOSSES, {"depth": 0.5, "normals": 2.0})
    assert value(loss) == pytest.approx(0.5 * 10 + 2 * 21)
    assert loss.trainable_variables == []


def test_learned_weights() -> None:
    loss = MultiTaskLoss(LOSSES)
    assert len(loss.trainable_variables) == 2
    assert value(loss) == pytest.approx(31)
    loss.log_scales["depth"].assign(1.0)
    assert value(loss) == pytest.approx(math.exp(-1) * 10 + 1 + 21)


def test_a_weight_stays_within_its_bound() -> None:
    loss = MultiTaskLoss(LOSSES)
    loss.log_scales["depth"].assign(-50.0)
    assert value(loss) == pytest.approx(math.exp(2) * 10 - 2 + 21, rel=1e-5)


@pytest.mark.parametrize("weights", [{"depth": 1.0}, {"depth": 1.0, "normals": -1.0}])
def test_weights_must_be_one_for_each_task(weights) -> None:
    with pytest.raises(EdgeheadsError, match="at least 0 for each of depth, normals, received"):
        MultiTaskLoss(LOSSES, weights)
