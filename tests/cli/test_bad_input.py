"""What people get wrong: one line that says what to do, the right exit code, nothing half-made."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from commands import ENTRY, run
from PIL import Image

from edgeheads.cli import main

if TYPE_CHECKING:
    from conftest import TinyModels
    from edgeheads.convert import ConvertResult

RECIPE = Path(__file__).parent / "tiny.yaml"


def refused(exit_code: int, *arguments: object) -> str:
    """Call the entry point, which must fail, and return what it said."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["edgeheads", *map(str, arguments)]
    try:
        with redirect_stderr(said), pytest.raises(SystemExit) as left:
            main()
    finally:
        sys.argv = before
    assert left.value.code == exit_code, said.getvalue()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("edgeheads: ")]
    assert len(lines) == 1, said.getvalue()
    return lines[0]


def rgbd(folder: Path, count: int = 6) -> Path:
    """Write an RGB-D folder of noise."""
    rng = np.random.default_rng(0)
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(folder / f"color/{i}.png")
        Image.fromarray(rng.integers(500, 4000, (48, 64), np.uint16)).save(
            folder / f"depth/{i}.png"
        )
    return folder


def break_picture(folder: Path) -> None:
    (folder / "color" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")


def break_size(folder: Path) -> None:
    Image.fromarray(np.ones((10, 10), np.uint16)).save(folder / "depth" / "1.png")


def break_pair(folder: Path) -> None:
    (folder / "depth" / "1.png").unlink()


def break_bits(folder: Path) -> None:
    Image.fromarray(np.ones((48, 64), np.uint8)).save(folder / "depth" / "1.png")


def break_readings(folder: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(folder / "depth" / "1.png")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_picture, "color/1.png cannot be read ("),
        (break_size, "expected 64x48, received 10x10; register the depth to the colour camera"),
        (break_pair, "color/1.png has no depth map of the same name in"),
        (break_bits, "has 8 bits a pixel; expected 16-bit integers or float metres"),
        (break_readings, "has no reading: every pixel is 0, 65535, NaN or negative; remove it"),
    ],
)
def test_damaged_data_is_refused_with_strict(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = rgbd(tmp_path / "data")
    damage(folder)
    arguments = ("convert", "--recipe", RECIPE, "--data", folder, "--out", tmp_path / "run")
    assert words in refused(2, *arguments, "--strict")
    assert not any((tmp_path / "run").iterdir())


def test_damaged_data_is_skipped_and_counted(tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "data")
    break_picture(folder)
    done = run("convert", "--recipe", RECIPE, "--data", folder, "--out", tmp_path / "run")
    assert "1 training samples were skipped:" in done.stdout, done.stderr
    assert "color/1.png cannot be read (" in done.stdout


def test_data_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    folder = rgbd(tmp_path / "data")
    for path in (folder / "color").iterdir():
        path.write_bytes(b"no picture")
    arguments = ("convert", "--recipe", RECIPE, "--data", folder, "--out", tmp_path / "run")
    assert "none of 5 samples can be used; the first: image " in refused(2, *arguments)


def test_folder_of_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    arguments = ("convert", "--recipe", RECIPE, "--data", tmp_path, "--out", tmp_path / "run")
    said = refused(2, *arguments)
    assert "is in no known format; say which it is with --format" in said
    assert "voc: DIR/JPEGImages" in said
    said = refused(2, *arguments, "--format", "cocoa")
    assert "unknown data format 'cocoa'; did you mean coco" in said


def write_weights(path: Path, poison: bool = False, width: float = 1.0) -> Path:
    """Write weights of the tiny backbone as layer/weight arrays."""
    script = f"""
import numpy as np, keras
from edgeheads.backbones import create_backbone
model = create_backbone("tiny", (64, 64, 3), width={width})
arrays = {{
    f"{{layer.name}}/{{v.name}}": np.array(v) for layer in model.layers for v in layer.weights
}}
if {poison}:
    next(iter(arrays.values())).flat[0] = np.nan
np.savez({str(path)!r}, **arrays)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return path


def test_weights_that_are_missing_poisoned_or_of_another_network(tmp_path: Path) -> None:
    def said(weights: Path) -> str:
        arguments = ("--recipe", RECIPE, "--weights", weights, "--out", tmp_path / "run")
        return refused(2, "convert", *arguments)

    assert "nowhere.npz does not exist; give a .npz" in said(tmp_path / "nowhere.npz")
    assert "holds NaN or infinite values in" in said(write_weights(tmp_path / "a.npz", poison=True))
    assert "does not fit tiny" in said(write_weights(tmp_path / "b.npz", width=2.0))
    cut = tmp_path / "c.npz"
    cut.write_bytes((tmp_path / "b.npz").read_bytes()[:300])
    assert "c.npz is not a readable .npz archive" in said(cut)
    assert not any((tmp_path / "run").iterdir())


def test_imagenet_weights_that_cannot_be_fetched_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never trains from noise in their place."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "empty cache"))
    # A proxy that nobody answers at, so that no network is asked.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    said = refused(
        2, "convert", "--task", "depth", "--weights", "imagenet", "--out", tmp_path / "run"
    )
    assert "ImageNet weights could not be downloaded (" in said
    assert "--weights none" in said
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "dept"], "unknown task 'dept'; did you mean depth"),
        ([], "say what to build: --task depth, or --recipe NAME"),
        (["--recipe", "nope"], "unknown recipe 'nope'; "),
        (
            ["--recipe", RECIPE, "--backbone", "tinny"],
            "unknown backbone 'tinny'; did you mean tiny",
        ),
        (["--task", "depth", "--input-size", "12x"], "--input-size must be like 128 or 192x256"),
        (["--task", "depth", "--input-size", "²"], "--input-size must be like 128 or 192x256"),
        (["--task", "depth", "--input-size", "8"], "input_size.0: input should be greater than or"),
        (
            ["--recipe", RECIPE, "--data", "/nowhere"],
            "data folder /nowhere does not exist;",
        ),
        (["--task", "depth", "--device", "hots"], "unknown device 'hots'; did you mean host?"),
        (["--recipe", RECIPE, "--model", "no.keras"], "model no.keras does not exist"),
    ],
)
def test_request_that_cannot_be_met(tmp_path: Path, arguments: list[object], words: str) -> None:
    assert words in refused(2, "convert", *arguments, "--out", tmp_path / "run")


def test_empty_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    arguments = ("--recipe", RECIPE, "--data", tmp_path / "data", "--out", tmp_path / "run")
    assert refused(2, "convert", *arguments).endswith("data is empty")


def test_recipe_with_an_unknown_key(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("task: depth\ninput_size: 64\ntraining: {epochs: 3}\n")
    said = refused(2, "convert", "--recipe", tmp_path / "r.yaml", "--dry-run")
    assert "r.yaml: unknown field 'training.epochs'; " in said


def test_output_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(2, "convert", "--recipe", RECIPE, "--out", tmp_path / "file" / "run")
    assert said.endswith("choose another folder with --out")


def test_option_that_does_not_exist() -> None:
    done = run("convert", "--taks", "depth")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "--task" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "bench"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda content: content[: len(content) // 2], "not a TFLite"),
        (lambda content: b"PK\x03\x04" + content[4:8].replace(b"TFL3", b"ZIPZ") + content[8:], ""),
        (lambda content: b"", ""),
    ],
)
def test_damaged_tflite(
    command: str,
    make: Callable[[bytes], bytes],
    words: str,
    tiny_models: TinyModels,
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(make(tiny_models.int8.read_bytes()))
    said = refused(2, command, path)
    assert "m.tflite" in said
    assert "TFLite" in said


@pytest.mark.parametrize("command", ["verify", "evaluate", "bench", "inspect"])
def test_folder_that_is_no_bundle(command: str, tmp_path: Path) -> None:
    assert "is not a Bundle: it has no manifest.json" in refused(2, command, tmp_path)


def test_changed_model_is_refused_by_every_command(
    converted: ConvertResult, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "b"
    shutil.copytree(converted.bundles["int8"].folder, folder)
    with (folder / "model.tflite").open("ab") as file:
        file.write(b"\0")
    for command in ("verify", "evaluate", "bench", "inspect"):
        assert "is not the file this Bundle was made with" in refused(1, command, folder)
    assert "is not the file" in refused(1, "predict", folder, tmp_path / "x.jpg")


def test_evaluate_reads_the_format_it_is_told(converted: ConvertResult, tmp_path: Path) -> None:
    import shutil

    bundle = shutil.copytree(converted.bundles["int8"].folder, tmp_path / "b")
    arguments = ("evaluate", bundle, "--data", rgbd(tmp_path / "data"))
    said = refused(2, *arguments, "--format", "rgdb")
    assert "unknown data format 'rgdb'; did you mean rgbd?" in said
    said = refused(2, *arguments, "--format", "mask-folders")
    assert "needs a folder of pictures and one of masks" in said
    assert run(*arguments, "--format", "rgbd").returncode == 0


def test_predict_on_what_is_no_image(converted: ConvertResult, tmp_path: Path) -> None:
    folder = converted.bundles["int8"].folder
    (tmp_path / "a.jpg").write_text("no picture")
    said = refused(2, "predict", folder, tmp_path / "a.jpg", "--out", tmp_path / "out")
    assert "a.jpg cannot be read (" in said
    assert "nowhere.jpg does not exist" in refused(2, "predict", folder, "nowhere.jpg")


def test_predict_refuses_pictures_of_one_name(converted: ConvertResult, tmp_path: Path) -> None:
    said = refused(2, "predict", converted.bundles["int8"].folder, "a/x.jpg", "b/x.png")
    assert "2 images are called 'x', and their pictures would overwrite each other" in said


@pytest.mark.parametrize("moment", ["Training", "Evaluating"])
def test_interrupt_leaves_nothing_half_written(tmp_path: Path, moment: str) -> None:
    """Ctrl-C in the middle: one line, exit code 130, no Bundle and no draft."""
    steps = "100000" if moment == "Training" else "1"
    arguments = ["convert", "--recipe", RECIPE, "--steps", steps, "--out", tmp_path / "run"]
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-c", ENTRY, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            # Draw the bars although this is no terminal.
            env={**os.environ, "TTY_COMPATIBLE": "1", "COLUMNS": "120"},
        )
        deadline = time.monotonic() + 120
        while moment not in log.read_text() and time.monotonic() < deadline:
            assert child.poll() is None, log.read_text()
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
    text = log.read_text()
    assert child.returncode == 130, text
    assert "Traceback" not in text
    assert text.endswith("edgeheads: interrupted; nothing was left half-written\n")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left <= {"model.keras", "recipe.yaml"}
