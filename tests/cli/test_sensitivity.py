"""`edgeheads sensitivity`, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.slow
def test_sensitivity_of_a_run(tmp_path: Path) -> None:
    """The table is sorted by the drop, and JSON and picture are written."""
    trained = run("train", "--recipe", TINY, "--out", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    done = run(
        "sensitivity",
        tmp_path / "run",
        "--samples",
        4,
        "--metric",
        "--max-drop",
        100,
        "--out",
        tmp_path / "found",
    )
    assert done.returncode == 0, done.stderr
    assert "on 4 samples held out of training" in done.stdout
    assert "Mixed precision: AbsRel drop" in done.stdout
    found = json.loads((tmp_path / "found" / "sensitivity.json").read_text())
    drops = [layer["drop"] for layer in found["layers"]]
    assert drops == sorted(drops, reverse=True)
    assert found["held_out"] == 4
    assert found["mixed"]["drop"] <= found["mixed"]["max_drop"] == 1.0
    assert (tmp_path / "found" / "mixed.tflite").read_bytes()[4:8] == b"TFL3"
    assert (tmp_path / "found" / "sensitivity.png").stat().st_size > 1000


def test_a_budget_needs_a_folder(tmp_path: Path) -> None:
    """The text names the option."""
    done = run("sensitivity", tmp_path / "no.keras", "--recipe", TINY, "--max-drop", 1)
    assert done.returncode == 2
    assert "--max-drop writes a file: say where, with --out DIR" in done.stderr
    done = run("sensitivity", "a", "--recipe", TINY, "--max-drop", "nan", "--out", tmp_path)
    assert done.returncode == 2
    assert "--max-drop must be finite, received nan" in done.stderr


def test_a_model_that_is_missing(tmp_path: Path) -> None:
    """One line, without a traceback."""
    done = run("sensitivity", tmp_path / "no.keras", "--recipe", TINY)
    assert done.returncode == 2
    assert "no.keras does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_written_is_found_out_before_anything_is_measured(tmp_path: Path) -> None:
    """The model is missing, too, and that is found out later."""
    (tmp_path / "file").touch()
    arguments = ("sensitivity", tmp_path / "no.keras", "--recipe", TINY, "--out")
    done = run(*arguments, tmp_path / "file")
    assert done.returncode == 2
    assert "cannot write to" in done.stderr
    assert "choose another folder with --out" in done.stderr
    done = run(*arguments, tmp_path / "found", without={"matplotlib"})
    assert done.returncode == 2
    assert 'pip install "edgeheads[plots]"' in done.stderr
    assert not (tmp_path / "found").exists()
