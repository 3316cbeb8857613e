"""`edgeheads train`, in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ENTRY, run

from edgeheads.recipe import load_recipe

pytest.importorskip("tensorflow")

TINY = Path(__file__).parent / "tiny.yaml"


def test_train_says_what_it_did_and_convert_takes_it_from_there(tmp_path: Path) -> None:
    done = run("train", "--recipe", TINY, "--steps", 4, "--out", tmp_path / "a run")
    assert done.returncode == 0, done.stderr
    assert "Steps: 4 of 4 (4 training); loss " in done.stdout
    assert "AbsRel ↓" in done.stdout
    assert "images/s, one device" in done.stdout
    assert "Samples: 6 trained on, 0 validated on" in done.stdout
    for name in ("model.keras", "recipe.yaml", "training.csv", "curves.png"):
        assert (tmp_path / "a run" / name).stat().st_size > 0
    following = done.stdout.splitlines()[-1].removeprefix("Next: edgeheads ")
    done = run(*shlex.split(following), "--out", tmp_path / "converted")
    assert "int8 Bundle: " in done.stdout, done.stderr


def test_ctrl_c_prints_the_command_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--recipe", str(TINY), "--steps", "5000", "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *arguments, "--checkpoint-every", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        deadline = time.monotonic() + 180
        while not (out / "checkpoint" / "state.npz").is_file():
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, stderr
    assert f"stopped; go on with: edgeheads train --resume --out {out}" in stderr
    # That command finds the recipe by itself, --steps included.
    dry = run("train", "--resume", "--out", out, "--dry-run")
    assert "steps: 5000" in dry.stdout
    # And without --resume nothing is thrown away.
    again = run("train", "--recipe", TINY, "--out", out)
    assert again.returncode == 2
    assert "holds an unfinished training; go on with --resume, delete it, or" in again.stderr


def test_json_is_all_there_is_on_stdout(tmp_path: Path) -> None:
    done = run("train", "--recipe", TINY, "--out", tmp_path / "run", "--json")
    content = json.loads(done.stdout)
    assert content["steps"] == 3
    assert set(content["test"]["metrics"]) >= {"abs_rel", "delta1"}
    assert content["validations"] == []


def test_dry_run_prints_a_recipe_that_reads_back(tmp_path: Path) -> None:
    done = run("train", "--task", "depth", "--weights", "w.npz", "--steps", "7", "--dry-run")
    (tmp_path / "r.yaml").write_text(done.stdout)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert (recipe.backbone.weights, recipe.training.steps) == ("w.npz", 7)


def test_nothing_to_train_is_an_error() -> None:
    done = run("train")
    assert done.returncode == 2
    assert "say what to build: --task depth, or --recipe NAME; see: edgeheads train" in done.stderr
