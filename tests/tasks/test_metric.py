"""Metrics: which way is worse, by how much, and in what words."""

from __future__ import annotations

import math

import pytest

from edgeheads.tasks.base import Metric, rounded

TOP1 = Metric("top1", "top-1", "", True, 0, 1, 0.01)
ABS_REL = Metric("abs_rel", "AbsRel", "", False, 0, math.inf, 0.03, drop_is_relative=True)
NME = Metric("nme", "NME", "%", False, 0, math.inf, 1.5)


@pytest.mark.parametrize(
    ("metric", "reference", "value", "drop", "text"),
    [
        (TOP1, 0.8, 0.75, 0.05, "-5.00 points"),
        (TOP1, 0.8, 0.9, -0.1, "+10.00 points"),
        (ABS_REL, 0.2, 0.21, 0.05, "+5.0 %"),
        (ABS_REL, 0.2, 0.19, -0.05, "-5.0 %"),
        (ABS_REL, 0.0, 0.0, 0.0, "+0.0 %"),
        (NME, 7.0, 7.25, 0.25, "+0.250 %"),
    ],
)
def test_a_drop_is_positive_where_the_value_is_worse(metric, reference, value, drop, text) -> None:
    assert metric.drop(reference, value) == pytest.approx(drop)
    assert metric.format(metric.difference(reference, value)) == text


def test_any_error_is_endlessly_worse_than_none() -> None:
    assert ABS_REL.drop(0.0, 0.1) == math.inf


@pytest.mark.parametrize(
    ("metric", "text"), [(TOP1, "+0.00 points"), (ABS_REL, "+0.0 %"), (NME, "+0.000 %")]
)
def test_a_zero_has_no_sign(metric, text) -> None:
    """Neither that of no change at all, nor what is printed of a change of a millionth."""
    assert math.copysign(1, metric.drop(0.5, 0.5)) == 1
    assert metric.format(-1e-6) == text
    assert f"{rounded(-1e-6, 4):.4f}" == "0.0000"
    assert rounded(-0.12346, 4) == -0.1235
