"""The measuring program, run the way a device runs it: alone, in a process of its own."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.ondevice.archive import archive_sources, measuring_program
from edgeheads.ondevice.files import read_arrays, write_arrays
from edgeheads.ondevice.timing import summarize

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Return a function that runs the program on a request and gives its result."""

    def run(path: str = "", **request: Any) -> dict[str, Any]:
        (tmp_path / "request.json").write_text(json.dumps(request, default=str))
        (tmp_path / "measure.pyz").write_bytes(measuring_program())
        done = subprocess.run(
            [sys.executable, "measure.pyz", "request.json", "result.json"],
            cwd=tmp_path,
            env={**ENVIRONMENT, **({"PYTHONPATH": path} if path else {})},
            capture_output=True,
            text=True,
        )
        result = json.loads((tmp_path / "result.json").read_text())
        assert done.returncode == (3 if "error" in result else 0), done.stderr
        assert not list(tmp_path.glob("*.tmp"))
        return result

    return run


def _bench(**keys: Any) -> dict[str, Any]:
    return {"action": "bench", "warmup_runs": 1, "min_warmup_seconds": 0.0, "runs": 5, **keys}


def test_it_stands_alone() -> None:
    """A device has neither edgeheads nor a new Python."""
    packed = {name[: -len(".py")].replace("/", ".") for name in archive_sources()}
    for path in archive_sources().values():
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        ours = {name for name in imported if name.split(".")[0] == "edgeheads"}
        assert ours <= packed, path
        roots = {name.split(".")[0] for name in imported - ours}
        assert roots - set(sys.stdlib_module_names) <= {"numpy"}, path


def test_equal_sources_give_equal_bytes() -> None:
    first = measuring_program()
    measuring_program.cache_clear()
    assert measuring_program() == first


def test_summary_of_a_hand_made_series() -> None:
    summary = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert summary == {
        "p50": 3.0,
        "p90": pytest.approx(4.6),
        "p95": pytest.approx(4.8),
        "p99": pytest.approx(4.96),
        "mean": 3.0,
        "std": pytest.approx(2**0.5),
        "min": 1.0,
        "max": 5.0,
    }


def test_describe(ask: Ask) -> None:
    result = ask(action="describe")
    assert result["runtime"]["name"] in ("ai-edge-litert", "tflite-runtime", "tensorflow")
    assert result["python"] == ".".join(map(str, sys.version_info[:3]))
    assert result["numpy"] == np.__version__
    assert set(result["conditions"]) == {
        "governor",
        "max_frequency_mhz",
        "frequency_mhz",
        "temperature_celsius",
        "load_average_1min",
        "throttling",
    }


class TestRuntimeChoice:
    """Stand-ins on the path take the place of the real packages."""

    @pytest.fixture
    def packages(self, tmp_path: Path) -> Path:
        for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"):
            self.install(tmp_path / "site", name, f"raise ModuleNotFoundError(name={name!r})")
        return tmp_path / "site"

    def install(self, folder: Path, name: str, body: str) -> None:
        package = folder / name
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(body)
        (package / "interpreter.py").write_text("Interpreter = OpResolverType = None")

    @pytest.mark.parametrize(
        ("installed", "chosen"),
        [
            (["ai_edge_litert", "tflite_runtime"], "ai-edge-litert"),
            (["tflite_runtime"], "tflite-runtime"),
            (["tensorflow"], "tensorflow"),
            (["tflite_runtime", "tensorflow"], "tflite-runtime"),
        ],
    )
    def test_order(self, ask: Ask, packages: Path, installed: list[str], chosen: str) -> None:
        for name in installed:
            tensorflow_names = (
                "class lite:\n class experimental: OpResolverType = None\n Interpreter = None"
            )
            self.install(packages, name, tensorflow_names)
        assert ask(str(packages), action="describe")["runtime"]["name"] == chosen

    def test_insisting_on_one(self, ask: Ask, packages: Path) -> None:
        self.install(packages, "ai_edge_litert", "")
        self.install(packages, "tflite_runtime", "__version__ = '9.8.7'")
        result = ask(str(packages), action="describe", runtime="tflite-runtime")
        assert result["runtime"]["name"] == "tflite-runtime"

    def test_none_installed(self, ask: Ask, packages: Path) -> None:
        error = ask(str(packages), action="describe")["error"]
        assert error["kind"] == "no-interpreter"
        assert "tflite-runtime: not installed" in error["message"]
        assert "pip install ai-edge-litert" in error["message"]

    def test_installed_but_broken(self, ask: Ask, packages: Path) -> None:
        self.install(packages, "tflite_runtime", "raise ImportError('GLIBC_2.99 not found')")
        error = ask(str(packages), action="describe")["error"]
        assert error["kind"] == "broken-interpreter"
        assert "GLIBC_2.99 not found" in error["message"]

    def test_a_missing_module_further_inside_is_named(self, ask: Ask, packages: Path) -> None:
        self.install(packages, "ai_edge_litert", "import surely_missing")
        error = ask(str(packages), action="describe")["error"]
        assert error["kind"] == "broken-interpreter"
        assert "surely_missing" in error["message"]


class TestInspect:
    def test_int8_model(self, ask: Ask, tiny_models: Any) -> None:
        result = ask(action="inspect", model=tiny_models.int8)
        assert result["size_bytes"] == tiny_models.int8.stat().st_size
        assert result["signature"] == "serving_default"
        (image,) = result["inputs"]
        assert (image["name"], image["shape"], image["dtype"]) == ("image", [1, 8, 8, 3], "int8")
        assert image["scale"] == pytest.approx(1 / 255, rel=1e-2)
        assert image["zero_point"] == -128
        shapes = {output["name"]: output["shape"] for output in result["outputs"]}
        assert shapes == {"area": [1, 2], "heat": [1, 8, 8, 2]}
        assert result["integer_nodes"] == result["nodes"] == 4
        assert result["non_integer"] == []
        convolutions = {"name": "CONV_2D", "dtypes": "int8", "count": 2, "delegated": 2}
        assert convolutions in result["ops"]

    def test_float_model_has_no_integer_nodes(self, ask: Ask, tiny_models: Any) -> None:
        result = ask(action="inspect", model=tiny_models.float32)
        assert result["integer_nodes"] == 0
        assert [node["dtypes"] for node in result["non_integer"]] == ["float32"] * 4
        assert result["inputs"][0]["scale"] is None
        assert result["inputs"][0]["zero_point"] is None

    @pytest.mark.parametrize("kind", ["float32", "int8", "split"])
    def test_without_delegate_nothing_is_delegated(
        self, ask: Ask, tiny_models: Any, kind: str
    ) -> None:
        result = ask(action="inspect", model=getattr(tiny_models, kind), delegate="none")
        assert result["delegated_nodes"] == result["delegate_partitions"] == 0
        assert len(result["undelegated"]) == result["nodes"]

    def test_everything_delegated(self, ask: Ask, tiny_models: Any) -> None:
        result = ask(action="inspect", model=tiny_models.int8, runtime="ai-edge-litert")
        assert (result["delegated_nodes"], result["delegate_partitions"]) == (4, 1)
        assert result["undelegated"] == []

    def test_node_in_the_middle_stays_outside(self, ask: Ask, tiny_models: Any) -> None:
        result = ask(action="inspect", model=tiny_models.split, runtime="ai-edge-litert")
        assert (result["nodes"], result["delegated_nodes"]) == (5, 4)
        assert result["delegate_partitions"] == 2
        assert result["undelegated"] == [{"index": 1, "op": "REVERSE_V2", "dtypes": "int8"}]


class TestBench:
    @pytest.mark.parametrize("kind", ["float32", "int8"])
    def test_statistics_belong_to_the_series(self, ask: Ask, tiny_models: Any, kind: str) -> None:
        result = ask(**_bench(model=getattr(tiny_models, kind)))
        assert len(result["series_ms"]) == result["runs"] == result["runs_requested"] == 5
        assert result["latency_ms"] == summarize(result["series_ms"])
        assert result["stopped_early"] is False
        assert result["warmup_runs"] == 1
        assert result["delegated_nodes"] <= result["nodes"] == 4
        assert min(result[key] for key in ("cold_start_ms", "import_ms", "first_inference_ms")) > 0
        assert result["started_at"] < result["finished_at"]
        assert result["started_at"].endswith("+00:00")
        assert "seed 0" in result["protocol"]

    def test_stopping_early_is_said(self, ask: Ask, tiny_models: Any) -> None:
        result = ask(**_bench(model=tiny_models.int8, max_seconds=0.0, runs=10**9))
        assert result["stopped_early"] is True
        assert result["runs"] == 1
        assert result["runs_requested"] == 10**9

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    def test_memory_is_not_the_parent_s(self, ask: Ask, tiny_models: Any) -> None:
        ballast = np.ones(100_000_000)  # 800 MB in this process; pytest itself may hold TensorFlow
        result = ask(**_bench(model=tiny_models.int8))
        assert 0 < result["model_memory_bytes"] < result["peak_memory_bytes"] < ballast.nbytes / 2


class TestPredict:
    def predict(self, ask: Ask, folder: Path, model: Path, **inputs: Any) -> dict[str, Any]:
        write_arrays(folder / "in.npz", inputs)
        return ask(action="predict", model=model, inputs="in.npz", outputs="out.npz")

    @pytest.mark.parametrize("kind", ["float32", "int8", "split"])
    def test_equals_an_interpreter_in_this_process(
        self, ask: Ask, tmp_path: Path, tiny_models: Any, kind: str
    ) -> None:
        interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
        model = getattr(tiny_models, kind)
        images = np.random.default_rng(1).uniform(0, 1, (3, 8, 8, 3)).astype(np.float32)
        if kind != "float32":
            images = np.round(images * 255 - 128).astype(np.int8)
        result = self.predict(ask, tmp_path, model, image=images)
        outputs = read_arrays(tmp_path / "out.npz")
        runner = interpreter_module.Interpreter(str(model)).get_signature_runner()
        expected = [runner(image=image[None]) for image in images]
        assert set(outputs) == {"area", "heat"}
        for name, values in outputs.items():
            np.testing.assert_array_equal(values, np.concatenate([row[name] for row in expected]))
        assert result["samples"] == len(result["invoke_ms"]) == 3
        assert result["seconds"] * 1e3 >= sum(result["invoke_ms"])

    @pytest.mark.parametrize(
        ("inputs", "expected", "received"),
        [
            (
                {"image": np.zeros((2, 8, 8, 3), np.uint8)},
                "int8 [N, 8, 8, 3]",
                "uint8 [2, 8, 8, 3]",
            ),
            ({"image": np.zeros((2, 8, 9, 3), np.int8)}, "int8 [N, 8, 8, 3]", "int8 [2, 8, 9, 3]"),
            ({"image": np.zeros((8, 8, 3), np.int8)}, "int8 [N, 8, 8, 3]", "int8 [8, 8, 3]"),
            ({"image": np.int8(0)}, "int8 [N, 8, 8, 3]", "int8 []"),
            ({"image": np.zeros((0, 8, 8, 3), np.int8)}, "at least 1", "{'image': 0}"),
            ({"picture": np.zeros((2, 8, 8, 3), np.int8)}, "['image']", "['picture']"),
        ],
    )
    def test_wrong_input(
        self,
        ask: Ask,
        tmp_path: Path,
        tiny_models: Any,
        inputs: dict[str, Any],
        expected: str,
        received: str,
    ) -> None:
        error = self.predict(ask, tmp_path, tiny_models.int8, **inputs)["error"]
        assert error["kind"] == "bad-input"
        assert expected in error["message"]
        assert received in error["message"]
        assert not (tmp_path / "out.npz").exists()

    def test_a_single_array_has_no_name(self, ask: Ask, tmp_path: Path, tiny_models: Any) -> None:
        np.save(tmp_path / "in.npy", np.zeros(3))
        request = {"model": tiny_models.int8, "inputs": "in.npy", "outputs": "out.npz"}
        error = ask(action="predict", **request)["error"]
        assert error["kind"] == "bad-input"
        assert "single array without a name" in error["message"]

    def test_pickled_objects_are_refused(self, ask: Ask, tmp_path: Path, tiny_models: Any) -> None:
        (tmp_path / "in.npz").write_bytes(pickle.dumps({"image": 1}))
        request = {"model": tiny_models.int8, "inputs": "in.npz", "outputs": "out.npz"}
        error = ask(action="predict", **request)["error"]
        assert error["kind"] == "bad-input"
        assert "pickled" in error["message"]


class TestBadModel:
    @pytest.mark.parametrize("kept", [lambda n: 1024, lambda n: n // 2, lambda n: n - 100])
    def test_truncated(
        self, ask: Ask, tmp_path: Path, tiny_models: Any, kept: Callable[[int], int]
    ) -> None:
        content = tiny_models.int8.read_bytes()
        (tmp_path / "cut.tflite").write_bytes(content[: kept(len(content))])
        error = ask(**_bench(model="cut.tflite", runtime="ai-edge-litert"))["error"]
        assert error["kind"] == "bad-model"
        assert "copy or export it again" in error["message"]

    @pytest.mark.parametrize(
        "content", [b"", b"TFL3", b"PK\x03\x04" + bytes(2000), b"\xff" * 4 + b"TFL3"]
    )
    def test_foreign(self, ask: Ask, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "foreign.tflite").write_bytes(content)
        error = ask(action="inspect", model="foreign.tflite")["error"]
        assert error["kind"] == "bad-model"
        assert f"received {len(content)} bytes that start with {content[:8]!r}" in error["message"]


@pytest.mark.parametrize(
    ("request_keys", "part"),
    [
        ({"action": "dance"}, "received 'dance'"),
        ({"action": "describe", "model": "m"}, "received ['model']"),
        ({"action": "inspect"}, "expected model as a text"),
        ({"action": "inspect", "model": "absent.tflite"}, "absent.tflite does not exist"),
        ({"action": "bench", "model": "m", "threads": 0}, "threads finite and at least 1"),
        ({"action": "bench", "model": "m", "runs": True}, "runs as an integer, received True"),
        ({"action": "bench", "model": "m", "max_seconds": "1"}, "max_seconds as a number"),
        ({"action": "bench", "model": "m", "delegate": "npu"}, "received 'npu'"),
        ({"action": "bench", "model": "m", "image": []}, "image as an object, received []"),
        ({"action": "bench", "model": "m", "runtime": "onnx"}, "received 'onnx'"),
        ({"action": "bench", "model": "m", "input_low": 2.0}, "received (2.0, 1.0)"),
    ],
)
def test_bad_request(ask: Ask, request_keys: dict[str, Any], part: str) -> None:
    error = ask(**request_keys)["error"]
    assert error["kind"] == "bad-request"
    assert part in error["message"]
    assert "\n" not in error["message"]


def test_arrays_survive_any_name(tmp_path: Path) -> None:
    """numpy.savez takes neither `file` nor a name that ends in .npy."""
    arrays = {"file": np.arange(3), "a/b:0": np.ones((2, 2), np.int8), "x.npy": np.zeros(0)}
    write_arrays(tmp_path / "arrays.npz", arrays)
    restored = read_arrays(tmp_path / "arrays.npz")
    assert set(restored) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(restored[name], array)


def test_objects_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_arrays(tmp_path / "arrays.npz", {"a": np.array([object()])})
    assert not (tmp_path / "arrays.npz").exists()
