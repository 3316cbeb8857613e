"""The command line as it is called: what it imports, prints, and exits with."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from commands import DEVICE_LACKS, run
from PIL import Image

from edgeheads.cli import COMMANDS
from edgeheads.recipe import load_recipe

if TYPE_CHECKING:
    from conftest import TinyModels
    from edgeheads.convert import ConvertResult


@pytest.fixture
def bundle(converted: ConvertResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted.bundles["int8"].folder, tmp_path / "a bundle"))


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)])
def test_help_imports_neither_tensorflow_nor_keras(arguments: list[str]) -> None:
    script = textwrap.dedent(
        f"""
        import sys
        sys.argv = ["edgeheads", *{arguments!r}, "--help"]
        from edgeheads.cli import main
        try:
            main()
        finally:
            heavy = {{"tensorflow", "keras", "pydantic", "yaml", "rich", "PIL", "ai_edge_litert"}}
            print("loaded:", sorted(heavy & set(sys.modules)))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout
    assert "loaded: []" in done.stdout


def test_help_answers_at_once() -> None:
    """Processor time of the child, best of three, so that a busy machine does not fail it."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


def test_help_lists_every_command_and_the_exit_codes() -> None:
    text = run("--help").stdout
    for command, (_, line) in COMMANDS.items():
        assert f"{command} " in text
        assert line in text
    assert "130 interrupted" in text


def test_importing_the_package_is_light() -> None:
    script = (
        "import sys, edgeheads, edgeheads.heads; "
        "edgeheads.HeadConfiguration.get_efficient_config(edgeheads.TaskType.parse('depth')); "
        "print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_a_bundle_needs_no_tensorflow_no_yaml_and_no_rich(bundle: Path, tmp_path: Path) -> None:
    """Everything after the Bundle runs with click, NumPy, an interpreter, and Pillow for images."""
    Image.new("RGB", (40, 30), (90, 60, 30)).save(tmp_path / "photo.jpg")
    calls = [
        ("verify", bundle),
        ("inspect", bundle),
        ("evaluate", bundle),
        ("bench", bundle, "--runs", 3, "--warmup", 1, "--repeats", 2),
        ("predict", bundle, tmp_path / "photo.jpg", "--out", tmp_path / "drawn"),
    ]
    for arguments in calls:
        done = run(*arguments, without=DEVICE_LACKS)
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout
    assert (tmp_path / "drawn" / "photo-depth.png").is_file()


def test_verify_prints_every_check_and_exits_1_on_a_failure(bundle: Path) -> None:
    done = run("verify", bundle)
    assert done.returncode == 0
    assert done.stdout.count("ok") == 8
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["contract"]["outputs"][0]["scale"] = 0.5
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = run("verify", bundle)
    assert done.returncode == 1
    assert "2 of 5 checks failed, the first: tensors match the contract: " in done.stderr


def test_inspect_shows_tensors_operators_and_coverage(bundle: Path) -> None:
    text = run("inspect", bundle).stdout
    for words in ("depth_code", "1x64x64x3", "0.00390625", "CONV_2D", "partition(s)"):
        assert words in text
    content = json.loads(run("inspect", bundle, "--json").stdout)
    assert content["integer_nodes"] == content["nodes"] == content["delegated_nodes"]


def test_inspect_names_what_the_delegate_leaves(tiny_models: TinyModels) -> None:
    text = run("inspect", tiny_models.split).stdout
    assert "left to the interpreter: node" in text
    assert "REVERSE_V2 (int8)" in text


def test_bench_compares_bundles_and_files_and_stores_the_bundle_s(
    bundle: Path, tiny_models: TinyModels
) -> None:
    arguments = ("bench", bundle, tiny_models.int8, "--runs", 4, "--repeats", 2, "--warmup", 1)
    content = json.loads(run(*arguments, "--json").stdout)
    assert list(content) == [str(bundle), str(tiny_models.int8)]
    for one in content.values():
        assert [repeat["runs"] for repeat in one["repeats"]] == [4, 4]
        assert one["repeats"][0]["peak_memory_bytes"] > 1e6
        assert one["repeats"][0]["cold_start_ms"] > 0
    stored = json.loads((bundle / "benchmark.json").read_text())
    assert stored["latency_ms"] == content[str(bundle)]["latency_ms"]
    assert stored["model_sha256"] == content[str(bundle)]["repeats"][0]["sha256"]


def test_predict_draws_the_image_beside_its_depth(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 80, 3), np.uint8)).save(tmp_path / "a b.png")
    done = run("predict", bundle, tmp_path / "a b.png", "--out", tmp_path / "out")
    assert done.stdout == f"{tmp_path / 'out' / 'a b-depth.png'}\n"
    drawn = np.asarray(Image.open(tmp_path / "out" / "a b-depth.png"))
    assert drawn.shape[0] == 50
    np.testing.assert_array_equal(drawn[:, :80], np.asarray(Image.open(tmp_path / "a b.png")))


def test_dry_run_prints_a_recipe_that_reads_back(tmp_path: Path) -> None:
    done = run(
        "convert", "--task", "monocular-depth", "--backbone", "mobilenet_v2", "--width", "0.5",
        "--input-size", "96x160", "--weights", "w.npz", "--data", "pictures", "--steps", "7",
        "--precision", "int8", "--precision", "float16", "--seed", "3", "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (tmp_path / "r.yaml").write_text(done.stdout)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.task == "depth"
    assert recipe.input_size == (96, 160)
    assert (recipe.backbone.width, recipe.backbone.weights) == (0.5, "w.npz")
    assert (recipe.data.source, recipe.training.steps, recipe.seed) == ("pictures", 7, 3)
    assert recipe.export.precisions == ("int8", "float16")


@pytest.mark.parametrize(
    ("device", "kernels"), [("raspberry-pi-5", "xnnpack"), ("coral-usb", "any")]
)
def test_a_device_says_what_its_files_are_fast_for(
    tmp_path: Path, device: str, kernels: str
) -> None:
    done = run(
        "convert", "--task", "depth", "--fast-for", "device", "--device", device, "--dry-run"
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "r.yaml").write_text(done.stdout)
    assert load_recipe(tmp_path / "r.yaml").export.fast_for == kernels


def test_weights_none_overrides_the_recipe_s(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("task: depth\ninput_size: 64\nbackbone: {weights: a.npz}\n")
    done = run("convert", "--recipe", tmp_path / "r.yaml", "--weights", "none", "--dry-run")
    assert "weights: null" in done.stdout


def test_convert_json_is_all_there_is_on_stdout(tmp_path: Path) -> None:
    recipe = Path(__file__).parent / "tiny.yaml"
    done = run("convert", "--recipe", recipe, "--out", tmp_path / "run", "--json")
    content = json.loads(done.stdout)
    assert set(content["bundles"]) == {"int8"}
    assert content["bundles"]["int8"]["verified"] is True
    assert content["folder"] == str(tmp_path / "run")
    # So little training may well drop more than the task allows: then it says so, and exits 1.
    assert done.returncode == (1 if content["failures"] else 0)


def test_convert_then_use_the_model_beside_its_recipe(
    converted: ConvertResult, tmp_path: Path
) -> None:
    """--model finds the recipe.yaml beside the model, input size and all."""
    done = run(
        "convert", "--model", converted.model_path, "--precision", "float32",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "float32 Bundle: " in done.stdout
    assert "Next: edgeheads predict " in done.stdout
    assert "median depth of the training set" in done.stdout
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["float32"]
