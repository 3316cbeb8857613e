"""The merged report: what it holds, what it leaves out, and the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.report.charts import histogram
from edgeheads.report.collect import collect_report, pareto_front
from edgeheads.report.page import to_html

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def point(p50_ms: float, size_bytes: int, value: float) -> dict[str, float]:
    return {"p50_ms": p50_ms, "size_bytes": size_bytes, "value": value}


def test_pareto_front_keeps_what_nothing_beats_in_all_three() -> None:
    points = [point(1, 9, 0.5), point(2, 9, 0.5), point(3, 5, 0.5), point(4, 9, 0.9)]
    assert pareto_front(points, higher_is_better=True) == [True, False, True, True]
    assert pareto_front(points, higher_is_better=False) == [True, False, True, False]


def test_equal_points_are_both_on_the_front() -> None:
    assert pareto_front([point(1, 1, 1)] * 2, higher_is_better=True) == [True, True]


def test_stages_go_from_the_float_model_to_the_device(two_bundles: Path) -> None:
    content = collect_report([two_bundles])
    assert content["left_out"] == []
    int8 = content["bundles"][1]
    assert [one["stage"] for one in int8["stages"]] == ["float Keras", ".tflite on host"]
    reference, host = (one["metrics"]["delta1"] for one in int8["stages"])
    assert int8["stages"][1]["drops"]["delta1"] == pytest.approx(reference - host)
    json.dumps(content, allow_nan=False)


def test_checks_of_a_device_and_of_a_target_that_is_not_at_hand(two_bundles: Path) -> None:
    sha256 = collect_report([two_bundles])["bundles"][1]["model_sha256"]
    check = {"name": "operations", "passed": False, "detail": "ARG_MAX <CPU>"}
    target = {"model_sha256": sha256, "target": "coral-usb", "checks": [check]}
    (two_bundles / "int8" / "target-coral-usb.json").write_text(json.dumps(target))
    content = collect_report([two_bundles])
    checks = content["bundles"][1]["checks"]
    assert checks[0] == {"where": "coral-usb, not at hand", **check}
    assert {one["where"] for one in checks[1:]} == {"host"}
    page = to_html(content)
    assert f"{len(checks) - 1} of {len(checks)} checks passed" in page
    assert "ARG_MAX &lt;CPU&gt;" in page
    target["model_sha256"] = "0" * 64
    (two_bundles / "int8" / "target-coral-usb.json").write_text(json.dumps(target))
    assert (
        "target-coral-usb.json is of another file" in collect_report([two_bundles])["left_out"][0]
    )


def test_a_measurement_of_another_file_is_left_out_and_named(two_bundles: Path) -> None:
    path = two_bundles / "int8" / "benchmark.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_sha256": "0" * 64}))
    content = collect_report([two_bundles])
    assert content["bundles"][1]["benchmarks"] == {}
    assert len(content["left_out"]) == 1
    assert "is of another file" in content["left_out"][0]
    assert "is of another file" in to_html(content)


def test_a_measurement_without_its_numbers_is_left_out_and_named(two_bundles: Path) -> None:
    path = two_bundles / "int8" / "benchmark.json"
    path.write_text(json.dumps({"model_sha256": json.loads(path.read_text())["model_sha256"]}))
    content = collect_report([two_bundles])
    assert "benchmark.json has no latency_ms, repeats; measure again" in content["left_out"][0]
    assert to_html(content)


def test_files_of_one_run_share_a_chart(two_bundles: Path) -> None:
    [comparison] = collect_report([two_bundles])["comparisons"]
    assert [one["precision"] for one in comparison["points"]] == ["float32", "int8"]


def test_a_changed_bundle_is_left_out_and_named(two_bundles: Path) -> None:
    with (two_bundles / "int8" / "model.tflite").open("ab") as file:
        file.write(b"x")
    content = collect_report([two_bundles])
    assert [one["precision"] for one in content["bundles"]] == ["float32"]
    assert "is not the file this Bundle was made with" in content["left_out"][0]


def test_page_needs_nothing_beside_it_and_escapes_names(two_bundles: Path) -> None:
    page = to_html(collect_report([two_bundles]))
    assert "&lt;b&gt;run" in page
    assert "<b>run" not in page
    assert "<script" not in page
    sources = re.findall(r'(?:src|href)="([^"]{0,15})', page)
    assert sources
    assert all(source.startswith("data:image/png") for source in sources)
    assert page.count("<img ") == page.count('alt="Golden image')


def test_histogram_has_a_bar_for_each_bin_even_of_equal_values() -> None:
    assert histogram([2.0] * 5, "t").count("<rect") == 24


def test_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match="holds no Bundle"):
        collect_report([tmp_path])


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on PATH")
def test_browser_draws_the_page(two_bundles: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(collect_report([two_bundles])), encoding="utf-8")
    drawn = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert drawn.stdout.count("<section>") == 2
    assert "SHA-256" in drawn.stdout
