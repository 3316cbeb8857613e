"""Comparing quantizers on a model that was trained before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from conftest import tiny_recipe

pytest.importorskip("tensorflow")

from edgeheads.bench.quantizers import compare_quantizers, quantizers
from edgeheads.errors import EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult


def test_each_quantizer_is_scored_on_the_test_split_of_a_run(converted: ConvertResult) -> None:
    """The float32 file has the score it has in its Bundle; 3 samples are too few for a spread."""
    pytest.importorskip("ai_edge_quantizer")
    rows = compare_quantizers(
        tiny_recipe(), run=converted.folder, held_out=3, calibrations=("min-max",), timed=False
    )
    assert [row.quantizer for row in rows] == [
        "plain converter",
        "ai-edge-quantizer",
        "edgeheads min-max",
    ]
    scored = converted.evaluations["float32"]["metrics"]
    for row in rows:
        assert row.samples == 3
        assert row.reference == pytest.approx(scored["abs_rel"], rel=1e-4)
        assert row.spread is row.p50_ms is None
        assert row.sqnr_db is not None
        assert row.sqnr_db > 10


def test_runs_and_recipes_exclude_each_other() -> None:
    asked = CliRunner().invoke(quantizers, ["--runs", "a", "--recipes", "b"])
    assert isinstance(asked.exception, EdgeheadsError)
    assert "--runs are trained models, --recipes are trained here; give one" in str(asked.exception)
