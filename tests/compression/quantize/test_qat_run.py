"""Training for int8 as a part of `convert`: what it reports, what it keeps, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from conftest import QUICK_BENCH, tiny_recipe
from edgeheads.compression.quantize.qat_run import QatReport
from edgeheads.convert import convert
from edgeheads.errors import EdgeheadsError


def _report(**changes: object) -> QatReport:
    values = {"metric": "top-1", "samples": 8, "steps": 5, "observer": "learned"}
    return QatReport(**{**values, "float32": 0.9, "ptq": 0.7, "qat": 0.8, "kept": True, **changes})


def test_the_report_says_what_was_kept() -> None:
    assert str(_report()).endswith("float32 0.9000, int8 0.7000, int8 after it 0.8000: kept")
    assert "quantized as it was" in str(_report(qat=0.6, kept=False))


def test_the_report_says_that_training_diverged() -> None:
    text = str(_report(qat=None, kept=False))
    assert "int8 after it diverged: no better, so the float model is quantized as it was" in text
    assert text.endswith("lower quantize_aware.rate")


def test_the_report_names_what_training_did_not_round() -> None:
    report = _report(unrounded=("up", "mix"), per_channel=False)
    assert "5 steps, one scale for each kernel: top-1" in str(report)
    assert str(report).endswith(
        "layers up, mix have weights that training left unrounded and the file rounds"
    )
    assert report.as_json()["unrounded"] == ("up", "mix")


def test_mixed_precision_and_training_for_int8_exclude_each_other(tmp_path: Path) -> None:
    recipe = tiny_recipe(**{"quantize_aware.steps": 2, "export.max_drop": 0.5})
    with pytest.raises(EdgeheadsError, match=r"quantize_aware\.steps, received 2.*choose one"):
        convert(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_convert_trains_for_int8_and_keeps_the_better_file(tmp_path: Path) -> None:
    """The float model stays; the Bundle verifies against the model that it was made of."""
    recipe = tiny_recipe(
        **{
            "quantize_aware.steps": 4,
            "training.steps": 10,
            "export.precisions": ["int8"],
        }
    )
    result = convert(recipe, tmp_path / "run", bench_settings=QUICK_BENCH)
    report = result.aware
    assert report is not None
    assert report.steps == 4
    assert np.isfinite([report.float32, report.ptq, report.qat]).all()
    assert report.kept == (report.qat < report.ptq)  # an error: less is better
    assert (tmp_path / "run" / "quantize_aware.keras").exists() == report.kept
    assert (tmp_path / "run" / "model.keras").is_file()
    assert [one for one in result.checks["int8"] if not one.passed] == []
    assert (result.bundles["int8"].folder / "quantize_aware.json").is_file()


@pytest.mark.slow
def test_a_training_that_diverges_leaves_the_float_model(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        **{
            "quantize_aware.steps": 6,
            "quantize_aware.rate": 1e30,
            "training.steps": 2,
            "export.precisions": ["int8"],
        }
    )
    result = convert(recipe, tmp_path / "run", bench_settings=QUICK_BENCH)
    report = result.aware
    assert report is not None
    assert (report.qat, report.kept) == (None, False)
    assert not (tmp_path / "run" / "quantize_aware.keras").exists()
    assert (result.bundles["int8"].folder / "quantize_aware.json").is_file()
