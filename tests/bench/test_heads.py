"""What heads cost: the table measured for real."""

from __future__ import annotations

import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgeheads.bench.heads import measure_heads
from edgeheads.heads import HEADS
from edgeheads.runtime import BenchSettings, DeviceSession


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
        # Enhancement ends in a RELU of its own, which is faster in float.
        if row.name != "enhancement":
            assert row.integer_nodes == row.nodes
