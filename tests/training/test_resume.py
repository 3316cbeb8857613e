"""A training that was killed, or stopped, goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("pydantic")

from conftest import tiny_recipe  # noqa: E402
from edgeheads.errors import EdgeheadsError  # noqa: E402
from edgeheads.recipe import Recipe, load_recipe, recipe_to_yaml  # noqa: E402
from edgeheads.training.checkpoint import Checkpoint, State  # noqa: E402
from edgeheads.training.run import RunOptions, train_and_log  # noqa: E402

# Everything that has state: averages, a best model, dropout.
FEATURES: dict[str, Any] = {
    "data.train_samples": 16,
    "head.options": {
        "min_depth": 0.4,
        "max_depth": 10.0,
        "hidden_dim": 16,
        "use_ffn": True,
        "dropout_rate": 0.2,
    },
    "training.steps": 12,
    "training.ema_decay": 0.9,
    "training.clip_norm": 1.0,
    "training.validation_fraction": 0.25,
    "training.validations": 3,
}
SCRIPT = """
import sys
from pathlib import Path
from edgeheads.recipe import load_recipe
from edgeheads.training.run import RunOptions, train_and_log
train_and_log(load_recipe(sys.argv[1]), Path(sys.argv[2]), RunOptions(checkpoint_seconds=0.0))
"""


def start(recipe: Recipe, folder: Path) -> subprocess.Popen[bytes]:
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(recipe_to_yaml(recipe))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(folder)],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def steps_saved(folder: Path) -> int:
    path = folder / "checkpoint" / "state.npz"
    if not path.is_file():
        return 0
    with np.load(path) as file:
        return len(json.loads(str(file["facts"]))["facts"]["losses"])


def stop_when(child: subprocess.Popen[bytes], folder: Path, steps: int, number: int) -> int:
    """Send a signal once so many steps were saved; return the exit code."""
    deadline = time.monotonic() + 180
    try:
        while steps_saved(folder) < steps:
            assert child.poll() is None, child.communicate()[1].decode()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(number)
        return child.wait(60)
    finally:
        child.kill()
        child.communicate()


def weights(folder: Path) -> list[np.ndarray]:
    return keras.saving.load_model(folder / "model.keras", compile=False).get_weights()


def weights_file(path: Path) -> Path:
    """Weights for the tiny backbone, so that there is something to freeze."""
    from edgeheads.backbones import create_backbone

    create_backbone("tiny", (64, 64, 3)).save_weights(path)
    return path


@pytest.mark.slow
def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    backbone = {"name": "tiny", "weights": str(weights_file(tmp_path / "tiny.weights.h5"))}
    phases = {"training.frozen_fraction": 0.5, "training.backbone_rate": 0.3}
    recipe = tiny_recipe(**FEATURES, **phases, backbone=backbone)
    whole = train_and_log(recipe, tmp_path / "whole")
    assert [phase.steps for phase in whole.phases] == [6, 6]
    folder = tmp_path / "killed"
    assert stop_when(start(recipe, folder), folder, 4, signal.SIGKILL) == -signal.SIGKILL
    assert not (folder / "model.keras").exists()
    assert 4 <= steps_saved(folder) < 12
    again = train_and_log(recipe, folder, RunOptions(resume=True))
    assert again.history == whole.history
    assert again.scores == whole.scores
    for one, other in zip(weights(folder), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("training.csv", "recipe.yaml"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (folder / "checkpoint").exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a training that its user stopped."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    child = start(tiny_recipe(**{"training.steps": 5000}), folder)
    assert stop_when(child, folder, 2, signal.SIGINT) == -signal.SIGINT
    return folder


def test_ctrl_c_leaves_a_whole_checkpoint_and_logs(stopped: Path) -> None:
    steps = steps_saved(stopped)
    assert steps >= 2
    last = (stopped / "training.csv").read_text().splitlines()[-1]
    assert last.startswith(f"{steps},")
    assert not (stopped / "model.keras").exists()
    assert not list(stopped.rglob(".*draft*"))


def test_an_unfinished_training_is_not_thrown_away(stopped: Path) -> None:
    recipe = load_recipe(stopped / "checkpoint" / "recipe.yaml")
    with pytest.raises(EdgeheadsError, match="holds an unfinished training; go on with --resume"):
        train_and_log(recipe, stopped)
    assert steps_saved(stopped) >= 2


def test_a_checkpoint_of_another_recipe_is_refused_with_the_field(stopped: Path) -> None:
    recipe = load_recipe(stopped / "checkpoint" / "recipe.yaml")
    for changes, words in [
        ({"training.steps": 7}, "training.steps was 5000, now it is 7"),
        ({"seed": 3}, "seed was 0, now it is 3"),
        ({"head.options": {"hidden_dim": 24}}, "head.options.min_depth was 0.4, now it is None"),
    ]:
        with pytest.raises(EdgeheadsError, match=words):
            train_and_log(recipe.with_values(**changes), stopped, RunOptions(resume=True))
        assert load_recipe(stopped / "checkpoint" / "recipe.yaml") == recipe


def test_resuming_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgeheadsError, match="holds no checkpoint to resume from; run without"):
        train_and_log(tiny_recipe(), tmp_path / "run", RunOptions(resume=True))
    assert list((tmp_path / "run").iterdir()) == []


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {"seed": 0})
    checkpoint.save(State({"variables": [np.arange(3.0)]}, {"losses": [1.5]}))
    state = checkpoint.load()
    np.testing.assert_array_equal(state.arrays["variables"][0], [0.0, 1.0, 2.0])
    assert state.facts == {"losses": [1.5]}
    path = tmp_path / "checkpoint" / "state.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(EdgeheadsError, match=r"state\.npz cannot be read .* delete"):
        checkpoint.load()


def test_arrays_keep_their_order_beyond_ten(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {})
    checkpoint.save(State({"optimizer": [np.array(i) for i in range(12)]}, {}))
    assert [int(one) for one in checkpoint.load().arrays["optimizer"]] == list(range(12))


def test_other_data_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path, {"data_read": {"samples": 80}}).save(State({}, {}))
    with pytest.raises(EdgeheadsError, match=r"data_read\.samples was 80, now it is 79"):
        Checkpoint(tmp_path, {"data_read": {"samples": 79}}).load()
