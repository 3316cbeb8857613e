"""The table of many Bundles."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeheads.errors import CheckFailedError, EdgeheadsError
from edgeheads.report.table import collect_rows, find_bundles, to_markdown

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult


def test_a_row_for_each_judged_metric_of_each_file(
    two_bundles: Path, converted: ConvertResult
) -> None:
    rows = collect_rows(find_bundles([two_bundles]))
    assert [(row.precision, row.metric.name) for row in rows] == [
        (precision, name) for precision in ("float32", "int8") for name in ("abs_rel", "delta1")
    ]
    evaluation = converted.evaluations
    for row in rows:
        name = row.metric.name
        assert row.value == evaluation[row.precision]["metrics"][name]
        assert row.reference == evaluation["float32"]["metrics"][name]
        assert row.baseline == evaluation[row.precision]["baseline"]["metrics"][name]
        assert (row.task, row.data, row.images) == ("depth", "synthetic", 3)
        assert row.size_bytes == converted.bundles[row.precision].model_bytes
    assert [row.time_ratio for row in rows[:2]] == [1.0, 1.0]
    assert rows[0].drop == 0
    worse = evaluation["int8"]["metrics"]["abs_rel"] / evaluation["float32"]["metrics"]["abs_rel"]
    assert rows[2].drop == pytest.approx(worse - 1)


def test_markdown_has_a_cell_for_each_heading(two_bundles: Path) -> None:
    lines = to_markdown(collect_rows(find_bundles([two_bundles]))).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) == 2 + 4
    assert "| depth | synthetic | 3 | int8 | AbsRel ↓ |" in lines[4]


def test_without_the_float_file_there_is_nothing_to_compare_with(two_bundles: Path) -> None:
    shutil.rmtree(two_bundles / "float32")
    rows = collect_rows(find_bundles([two_bundles]))
    assert [(row.reference, row.drop, row.time_ratio) for row in rows] == [(None, None, None)] * 2
    assert to_markdown(rows)


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match="holds no Bundle; give the folder"):
        find_bundles([tmp_path])


def test_a_bundle_that_was_not_evaluated_names_the_command(two_bundles: Path) -> None:
    (two_bundles / "int8" / "evaluation.json").unlink()
    with pytest.raises(EdgeheadsError, match=r"was not evaluated; run: edgeheads evaluate .*int8"):
        collect_rows(find_bundles([two_bundles]))


def test_a_measurement_of_another_file_is_refused(two_bundles: Path) -> None:
    path = two_bundles / "int8" / "benchmark.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_sha256": "0" * 64}))
    with pytest.raises(CheckFailedError, match=r"measured another file .* edgeheads bench"):
        collect_rows(find_bundles([two_bundles]))
