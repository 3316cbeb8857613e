"""`edgeheads report` in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import DEVICE_LACKS, run

if TYPE_CHECKING:
    from edgeheads.convert import ConvertResult


@pytest.fixture
def bundle(converted: ConvertResult, tmp_path: Path) -> Path:
    return shutil.copytree(converted.bundles["int8"].folder, tmp_path / "int8")


def test_the_ending_of_out_chooses_the_format(bundle: Path, tmp_path: Path) -> None:
    for name, start in (("a.html", "<!doctype html>"), ("a.md", "# edgeheads"), ("a.json", "{")):
        result = run("report", bundle, "--out", tmp_path / name, without=DEVICE_LACKS)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["schema_version"] == 1


def test_a_page_without_jinja_names_the_extra(bundle: Path) -> None:
    result = run("report", bundle, "--format", "html", without={"jinja2"})
    assert result.returncode == 2
    assert "edgeheads[report]" in result.stderr
