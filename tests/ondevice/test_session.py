"""The session: real answers over the local link, and every failure over a fake one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.links.base import RunResult
from edgeheads.links.fake import FakeLink
from edgeheads.links.local import LocalLink
from edgeheads.runtime import BenchSettings, DeviceSession

QUICK = BenchSettings(warmup_runs=1, min_warmup_seconds=0.0, runs=5)


@pytest.fixture(scope="module")
def session() -> Any:
    with DeviceSession() as opened:
        yield opened


def _images(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 8, 8, 3), np.float32)


class TestOnThisMachine:
    def test_describe_names_the_interpreter(self, session: DeviceSession) -> None:
        answer = session.describe()
        assert answer["runtime"]["version"]
        assert answer["python"] == ".".join(map(str, sys.version_info[:3]))

    def test_inspect(self, session: DeviceSession, tiny_models: Any) -> None:
        answer = session.inspect(tiny_models.int8)
        assert [output["name"] for output in answer["outputs"]] == ["area", "heat"]

    def test_bench_asks_for_what_the_settings_say(
        self, session: DeviceSession, tiny_models: Any
    ) -> None:
        answer = session.bench(tiny_models.float32, replace(QUICK, threads=2, seed=3))
        assert (answer["threads"], answer["seed"], answer["runs"]) == (2, 3, 5)
        assert session.bench(tiny_models.float32, QUICK)["threads"] == session.profile.threads

    def test_profile_without_delegate(self, tiny_models: Any) -> None:
        with DeviceSession(DeviceProfile(delegate="none")) as session:
            assert session.bench(tiny_models.int8, QUICK)["delegated_nodes"] == 0

    def test_predict(self, session: DeviceSession, tiny_models: Any) -> None:
        outputs, report = session.predict_with_report(tiny_models.float32, {"image": _images(3)})
        assert {name: array.shape for name, array in outputs.items()} == {
            "area": (3, 2),
            "heat": (3, 8, 8, 2),
        }
        assert all(array.dtype == np.float32 for array in outputs.values())
        assert len(report["invoke_ms"]) == report["samples"] == 3
        again = session.predict(tiny_models.float32, {"image": _images(3)})
        np.testing.assert_array_equal(again["heat"], outputs["heat"])

    def test_batches_keep_their_order_and_the_disk_small(self, tiny_models: Any) -> None:
        link = LocalLink()
        whole = _images(5)
        with DeviceSession(link=link) as session:
            batches = iter([{"image": whole[:2]}, {"image": whole[2:4]}, {"image": whole[4:]}])
            parts, files = [], []
            for part in session.predict_batches(tiny_models.float32, batches):
                parts.append(part["heat"])
                files.append({path.name for path in link.folder.iterdir()})
            expected = session.predict(tiny_models.float32, {"image": whole})["heat"]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        assert files[0] == files[1] == files[2]
        assert {name for name in files[0] if name.endswith(".npz")} == {"inputs.npz", "outputs.npz"}

    def test_wrong_input_says_where_and_what(
        self, session: DeviceSession, tiny_models: Any
    ) -> None:
        with pytest.raises(EdgeheadsError) as caught:
            session.predict(tiny_models.int8, {"image": _images(1)})
        text = str(caught.value)
        assert text.startswith(f"{tiny_models.int8}: input 'image': expected int8 [N, 8, 8, 3]")
        assert "received float32 [1, 8, 8, 3]" in text

    def test_objects_are_refused(self, session: DeviceSession, tiny_models: Any) -> None:
        with pytest.raises(EdgeheadsError, match="input 'image' holds Python objects"):
            session.predict(tiny_models.int8, {"image": np.array([None])})

    @pytest.mark.parametrize("kept", [lambda n: 1024, lambda n: n // 2, lambda n: n - 100])
    def test_truncated_model(
        self,
        session: DeviceSession,
        tiny_models: Any,
        tmp_path: Path,
        kept: Callable[[int], int],
    ) -> None:
        content = tiny_models.float32.read_bytes()
        (tmp_path / "cut.tflite").write_bytes(content[: kept(len(content))])
        with pytest.raises(EdgeheadsError, match="copy or export it again"):
            session.inspect(tmp_path / "cut.tflite")

    def test_missing_model(self, session: DeviceSession, tmp_path: Path) -> None:
        with pytest.raises(EdgeheadsError, match=r"absent\.tflite does not exist"):
            session.bench(tmp_path / "absent.tflite")

    def test_timeout(self, tiny_models: Any) -> None:
        session = DeviceSession(timeout_seconds=0.001)  # less than Python takes to start
        with session, pytest.raises(RuntimeFailureError, match="was stopped after"):
            session.inspect(tiny_models.int8)

    @pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
    def test_nothing_is_left_after_an_exception(
        self, tiny_models: Any, failure: type[BaseException]
    ) -> None:
        link = LocalLink()
        folders = []

        def interrupted() -> None:
            with DeviceSession(link=link) as session:
                session.inspect(tiny_models.int8)
                folders.append(link.folder)
                raise failure

        with pytest.raises(failure):
            interrupted()
        assert not folders[0].exists()


class TestOverAFakeLink:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        (tmp_path / "model.tflite").write_bytes(b"content")
        return tmp_path / "model.tflite"

    def fail(self, model: Path | None, answer: RunResult | dict[str, str], **profile: Any) -> str:
        """Return the type and text of the error that the device's answer becomes."""

        def respond(argv: list[str], files: dict[str, bytes]) -> RunResult:
            if isinstance(answer, RunResult):
                return answer
            files["result.json"] = json.dumps({"error": answer}).encode()
            return RunResult(3, "", "")

        session = DeviceSession(DeviceProfile(**profile), FakeLink(respond))
        with session, pytest.raises(EdgeheadsError) as caught:
            session.inspect(model) if model else session.describe()
        return f"{type(caught.value).__name__}: {caught.value}"

    @pytest.mark.parametrize("exit_code", [-11, 139])
    def test_a_crash_means_a_damaged_file(self, model: Path, exit_code: int) -> None:
        text = self.fail(model, RunResult(exit_code, "", ""))
        assert text == (
            f"EdgeheadsError: {model}: the interpreter on a fake device crashed (SIGSEGV); the "
            "file is damaged or not a TFLite model: compare its size and sha256 with the "
            "original, then copy or export it again"
        )

    def test_a_crash_without_a_model_is_the_device_s(self) -> None:
        text = self.fail(None, RunResult(-11, "", ""))
        assert text.startswith("RuntimeFailureError: the measuring program on a fake device ended")

    def test_killed(self, model: Path) -> None:
        text = self.fail(model, RunResult(-9, "", ""))
        assert text.startswith("RuntimeFailureError")
        assert "memory ran out" in text

    def test_any_other_end_shows_the_last_line(self, model: Path) -> None:
        text = self.fail(model, RunResult(1, "", "Traceback\nOSError: disk full\n"))
        assert text.endswith("ended with exit status 1: OSError: disk full")

    @pytest.mark.parametrize(
        ("runtime", "package", "extra"),
        [
            ("any", "ai-edge-litert", "runtime"),
            ("tflite-runtime", "tflite-runtime", "runtime-legacy"),
            ("tensorflow", "tensorflow", "convert"),
        ],
    )
    def test_no_interpreter(self, model: Path, runtime: str, package: str, extra: str) -> None:
        answer = {"kind": "no-interpreter", "message": "found none"}
        assert self.fail(model, answer, runtime=runtime) == (
            f"MissingDependencyError: running a .tflite file on a fake device needs {package}, "
            f'which is not installed; run: pip install "edgeheads[{extra}]"'
        )

    def test_a_device_without_numpy_has_no_interpreter_either(self) -> None:
        stderr = "Traceback\nModuleNotFoundError: No module named 'numpy'\n"
        text = self.fail(None, RunResult(1, "", stderr))
        assert text.startswith(MissingDependencyError.__name__)

    @pytest.mark.parametrize("kind", ["bad-model", "bad-input", "bad-request", "unsupported-op"])
    def test_errors_of_the_user(self, model: Path, kind: str) -> None:
        text = self.fail(model, {"kind": kind, "message": "what is wrong"})
        assert text == f"EdgeheadsError: {model}: what is wrong"

    @pytest.mark.parametrize("kind", ["out-of-memory", "broken-interpreter", "run-failed"])
    def test_errors_of_the_device(self, model: Path, kind: str) -> None:
        text = self.fail(model, {"kind": kind, "message": "what is wrong"})
        assert text == f"RuntimeFailureError: {model} on a fake device: what is wrong"

    def test_a_damaged_copy_is_noticed(self, model: Path) -> None:
        def respond(argv: list[str], files: dict[str, bytes]) -> RunResult:
            files["result.json"] = json.dumps({"sha256": "0" * 64}).encode()
            return RunResult(0, "", "")

        session = DeviceSession(link=FakeLink(respond))
        with session, pytest.raises(RuntimeFailureError, match="the copy is damaged"):
            session.inspect(model)

    def test_program_and_model_are_pushed_once(self, model: Path, tmp_path: Path) -> None:
        def respond(argv: list[str], files: dict[str, bytes]) -> RunResult:
            name = json.loads(files["request.json"])["model"]
            files["result.json"] = json.dumps({"sha256": name.split(".")[0]}).encode()
            return RunResult(0, "", "")

        same, other = tmp_path / "same.tflite", tmp_path / "other.tflite"
        same.write_bytes(model.read_bytes())
        other.write_bytes(b"other")
        link = FakeLink(respond)
        with DeviceSession(link=link) as session:
            for path in (model, model, same, other):
                session.inspect(path)
        pushed = [name for verb, name in link.calls if verb == "push"]
        assert pushed.count("measure.pyz") == 1
        assert len([name for name in pushed if str(name).endswith(".tflite")]) == 2
        assert ("run", ["python3", "measure.pyz", "request.json", "result.json"]) in link.calls


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"warmup_runs": -1},
        {"runs": 0},
        {"max_seconds": float("inf")},
        {"min_warmup_seconds": float("nan")},
        {"seed": -1},
        {"input_low": 1.0},
    ],
)
def test_settings_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(EdgeheadsError, match=next(iter(wrong))):
        BenchSettings(**wrong)


def test_neither_tensorflow_nor_keras_is_imported() -> None:
    code = (
        "import sys, edgeheads.runtime, edgeheads.bench.latency, edgeheads.links.local; "
        "print({'tensorflow', 'keras', 'yaml', 'ai_edge_litert'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
