"""What heads cost: operations by hand, and the table measured for real."""

from __future__ import annotations

import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.bench.heads import count_macs, measure_heads  # noqa: E402
from edgeheads.heads import HEADS  # noqa: E402
from edgeheads.runtime import BenchSettings, DeviceSession  # noqa: E402


def test_macs_by_hand() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4*4 * 3*3*3*4 = 1728
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # 4*4 * 3*3*4 = 576
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(10)(x)  # 4*10 = 40
    assert count_macs(keras.Model(image, x)) == 1728 + 576 + 40


def test_shared_convolution_works_once_per_level() -> None:
    shared = keras.layers.Conv2D(2, 1)
    fine, coarse = keras.Input((4, 4, 3)), keras.Input((2, 2, 3))
    model = keras.Model([fine, coarse], [shared(fine), shared(coarse)])
    assert count_macs(model) == (16 + 4) * 3 * 2


@pytest.mark.slow
def test_every_head_is_measured_on_one_backbone() -> None:
    settings = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=3)
    with DeviceSession() as session:
        rows = measure_heads("tiny", (64, 64), session, settings=settings, repeats=2)
    assert [row.name for row in rows] == ["backbone alone", *(task.value for task in HEADS)]
    backbone, *heads = rows
    assert backbone.ratio_to_backbone == 1
    for row in heads:
        assert row.parameters > 0
        assert row.macs > 0
        assert row.size_bytes > backbone.size_bytes
        assert row.integer_nodes == row.nodes
