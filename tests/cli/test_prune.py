"""`edgeheads prune`, in a process of its own."""

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

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

TINY = Path(__file__).parent / "tiny.yaml"


@pytest.mark.slow
def test_prune_takes_a_run_and_convert_takes_it_from_there(tmp_path: Path) -> None:
    run("train", "--recipe", TINY, "--out", tmp_path / "run")
    done = run("prune", tmp_path / "run", "--target", "macs=0.7", "--recover-steps", 2)
    assert done.returncode == 0, done.stderr
    assert "Bought: 0." in done.stdout
    assert "Cost: AbsRel " in done.stdout
    assert "WARNING" not in done.stderr
    following = done.stdout.splitlines()[-1].removeprefix("Next: edgeheads ")
    converted = run(*shlex.split(following), "--out", tmp_path / "converted")
    assert "int8 Bundle: " in converted.stdout, converted.stderr
    again = run("prune", tmp_path / "run", "--target", "macs=0.1", "--out", tmp_path / "no")
    assert again.returncode == 2
    assert "target macs=0.1 cannot be reached" in again.stderr
    assert list((tmp_path / "no").iterdir()) == []


@pytest.mark.slow
def test_convert_prunes_a_trained_model_when_told_to(tmp_path: Path) -> None:
    run("train", "--recipe", TINY, "--out", tmp_path / "run")
    model = tmp_path / "run" / "model.keras"
    done = run("convert", "--model", model, "--prune", "macs=0.7", "--out", tmp_path / "out")
    assert "Bought: 0." in done.stdout, done.stderr
    assert keras.saving.load_model(tmp_path / "out" / "pruned.keras").count_params() < (
        keras.saving.load_model(model).count_params()
    )


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    run("train", "--recipe", TINY, "--out", tmp_path / "run")
    out = tmp_path / "out"
    arguments = ["prune", str(tmp_path / "run"), "--target", "macs=0.7", "--out", str(out)]
    child = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *arguments, "--recover-steps", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        deadline = time.monotonic() + 180
        while not out.is_dir():
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(5)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert list(out.iterdir()) == []


def test_a_plain_model_is_pruned_as_it_is(tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 3, name="conv")(image)
    keras.Model(image, keras.layers.Conv2D(4, 1)(x)).save(tmp_path / "net.keras")
    done = run("prune", tmp_path / "net.keras", "--target", "macs=0.5", "--json")
    content = json.loads(done.stdout)
    assert content["widths"] == {"conv": [16, 8]}
    assert (tmp_path / "pruned" / "model.keras").is_file()


def test_options_are_checked_before_anything_starts(tmp_path: Path) -> None:
    dry = run("prune", tmp_path, "--target", "macs=0.5", "--task", "depth", "--dry-run")
    assert "target: macs=0.5" in dry.stdout
    for arguments, message in (
        (["--target", "mac=1"], "unknown target 'mac'; did you mean macs?"),
        (["--sparsity", "0.8", "--pattern", "2:4"], "the pattern 2:4 has 50% zeros at most"),
        (["--target", "macs=0.5", "--steps", "9"], "which is over; say --recover-steps"),
    ):
        done = run("prune", tmp_path, "--task", "depth", *arguments)
        assert done.returncode == 2
        assert message in done.stderr


def test_options_of_a_model_without_a_recipe_are_checked_too(tmp_path: Path) -> None:
    for arguments, message in (
        (["--target", "mac=1"], "pruning: target: unknown target 'mac'; did you mean macs?"),
        (["--target", "macs"], "latency=0.6, received 'macs'\n"),
        (["--target", "macs=0.5", "--distill", "-1"], "distill: input should be greater than"),
        (
            ["--sparsity", "0.8", "--pattern", "2:4"],
            "pruning: the pattern 2:4 has 50% zeros at most",
        ),
        (
            ["--target", "macs=0.5", "--input-size", "64", "--strict"],
            "--input-size, --strict would change a recipe, and the model has none beside it",
        ),
    ):
        done = run("prune", tmp_path / "net.keras", *arguments, "--dry-run")
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
