"""Limits on what was measured of a Bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgeheads.bundle import Bundle
from edgeheads.errors import EdgeheadsError
from edgeheads.gate import Limit, Verdict, check_limits, parse_limits

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult

ROUND = {"nodes": 9, "delegated_nodes": 9, "delegate": "coral"}


@pytest.fixture
def bundle(converted: ConvertResult, tmp_path: Path) -> Bundle:
    folder = tmp_path / "int8"
    shutil.copytree(converted.bundles["int8"].folder, folder)
    for path in (*folder.glob("benchmark*.json"), *folder.glob("*evaluation*.json")):
        path.unlink()
    return Bundle(folder)


def save_benchmark(bundle: Bundle, **changes: Any) -> None:
    content = {"latency_ms": {"p90": 30.0}, "unstable": False, "repeats": [ROUND]}
    bundle.save_measurement("benchmark", {**content, **changes})


def save_scores(bundle: Bundle, name: str, metrics: Mapping[str, float], data: str = "a") -> None:
    bundle.save_measurement(name, {"metrics": metrics, "data_sha256": data})


def check(bundle: Bundle, *arguments: str, **options: Any) -> list[Verdict]:
    return check_limits(bundle, parse_limits(bundle, arguments), **options)


def test_options_become_limits_with_either_spelling(bundle: Bundle) -> None:
    assert parse_limits(
        bundle, ["--max-p90-ms", "30", "--min-delta1=0.8", "--max-abs-rel", "1"]
    ) == [
        Limit("p90_ms", True, 30),
        Limit("delta1", False, 0.8),
        Limit("abs_rel", True, 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-delt1", "1"], "unknown limit 'delt1'; did you mean delta1"),
        (["--max-delta1", "1"], "higher is better; write --min-delta1 1"),
        (["--min-p90-ms", "1"], "lower is better; write --max-p90-ms 1"),
        (["--max-p90-ms"], "must be followed by a number, received ''"),
        (["--max-p90-ms", "nan"], "must be followed by a number, received 'nan'"),
        (["30"], "expected a limit like --max-p90-ms 30 .* received '30'"),
        ([], "nothing to check; give a limit"),
    ],
)
def test_what_is_no_limit_is_refused(bundle: Bundle, arguments: list[str], message: str) -> None:
    with pytest.raises(EdgeheadsError, match=message):
        parse_limits(bundle, arguments)


def test_a_limit_may_be_reached_and_not_passed(bundle: Bundle) -> None:
    save_benchmark(bundle)
    assert [one.passed for one in check(bundle, "--max-p90-ms=30", "--max-p90-ms=29.99")] == [
        True,
        False,
    ]


def test_size_is_judged_once_for_all_devices(bundle: Bundle) -> None:
    kilobytes = bundle.model_bytes / 1000
    [verdict] = check(bundle, "--max-size-kb", str(kilobytes), devices=("host", "pi"))
    assert (verdict.passed, verdict.value, verdict.device) == (True, kilobytes, "")


def test_missing_measurement_names_the_command(bundle: Bundle) -> None:
    latency, accuracy = check(bundle, "--max-p90-ms=30", "--min-delta1=0", devices=["pi@kitchen"])
    assert not latency.passed
    assert f"run: edgeheads bench {bundle.folder} --device pi (at kitchen)" in latency.reason
    assert "run: edgeheads evaluate" in accuracy.reason


def test_measurement_of_another_file_fails(bundle: Bundle) -> None:
    save_benchmark(bundle)
    path = bundle.folder / "benchmark.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_sha256": "0" * 64}))
    [verdict] = check(bundle, "--max-p90-ms=99")
    assert not verdict.passed
    assert "is of another file" in verdict.reason


def test_unstable_benchmark_fails(bundle: Bundle) -> None:
    save_benchmark(bundle, unstable=True, spread_percent=12.0)
    [verdict] = check(bundle, "--max-p90-ms=99")
    assert not verdict.passed
    assert "rounds differ by 12 %, expected at most 5 %" in verdict.reason


def test_fallback_fails_unless_it_is_allowed(bundle: Bundle) -> None:
    save_benchmark(bundle, repeats=[{**ROUND, "delegated_nodes": 7}])
    [refused] = check(bundle, "--max-p90-ms=99")
    assert not refused.passed
    assert "2 of 9 operations fell out of delegate coral" in refused.reason
    assert check(bundle, "--max-p90-ms=99", allow_fallback=True)[0].passed


def test_drop_is_against_the_float_model_in_the_metrics_own_terms(bundle: Bundle) -> None:
    save_scores(bundle, "float_evaluation", {"abs_rel": 0.20, "delta1": 0.80})
    save_scores(bundle, "evaluation", {"abs_rel": 0.21, "delta1": 0.79})
    relative, points = check(bundle, "--max-drop", "0.02")
    assert (relative.name, relative.value, relative.passed) == (
        "abs_rel",
        pytest.approx(0.05),
        False,
    )
    assert (points.name, points.value, points.passed) == ("delta1", pytest.approx(0.01), True)


def test_scores_of_other_images_are_no_drop(bundle: Bundle) -> None:
    save_scores(bundle, "float_evaluation", {"abs_rel": 0.2, "delta1": 0.8})
    save_scores(bundle, "evaluation", {"abs_rel": 0.2, "delta1": 0.8}, data="b")
    assert all("scored on other images" in one.reason for one in check(bundle, "--max-drop=1"))
