"""Edge TPU's compiler and Arm's Vela: what they say, and what is made of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import stand_ins

from edgeheads.bundle import Bundle
from edgeheads.device import Vela, load_device
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.targets.edgetpu import MappedOps, compile_for_edgetpu, parse_log
from edgeheads.targets.ethos import estimate
from edgeheads.targets.report import check_target

U55 = Vela("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")


def _compiler(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins.install(folder, {"edgetpu_compiler": text})
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _log_script(log: str) -> str:
    return f"#!/bin/sh\ncat <<'LOG'\n{log}LOG\n"


class TestEdgeTpuCompiler:
    def test_its_log(self) -> None:
        log = parse_log(stand_ins.EDGETPU_LOG)
        assert log.version == "16.0.384591198"
        assert (log.mapped, log.on_cpu, log.subgraphs) == (1, 4, 1)
        assert log.cached_bytes == round(3.33 * 2**20)
        assert log.streamed_bytes == 512
        assert log.ops[:3] == (
            MappedOps("CONV_2D", 1, "Mapped to Edge TPU"),
            MappedOps("CONV_2D", 1, "More than one subgraph is not supported"),
            MappedOps("REVERSE_V2", 1, "Operation not supported"),
        )
        assert len(log.ops) == 5

    def test_it_is_called_with_the_file(
        self, tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _compiler(
            tmp_path,
            f"#!/bin/sh\necho \"$@\" >'{tmp_path}/args'\n"
            f"cmp \"$4\" '{tiny_models.int8}' || exit 9\n",
            monkeypatch,
        )
        log = compile_for_edgetpu(tiny_models.int8)
        assert log is not None
        assert log.ops == ()
        assert (tmp_path / "args").read_text().startswith("-s -o ")

    def test_it_refuses(
        self, tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _compiler(tmp_path, "#!/bin/sh\necho Invalid model: x >&2\nexit 1\n", monkeypatch)
        with pytest.raises(RuntimeFailureError, match=r"refused .*: Invalid model: x; convert"):
            compile_for_edgetpu(tiny_models.int8)

    def test_it_is_not_here(
        self, tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert compile_for_edgetpu(tiny_models.int8) is None


class TestVela:
    @pytest.fixture(autouse=True)
    def _needs_vela(self) -> None:
        pytest.importorskip("ethosu.vela")

    def test_a_file_that_fits(self, tiny_models: Any) -> None:
        found = estimate(tiny_models.int8, U55)
        # 8*8*4*27 + 8*8*2*36 of the convolutions, and 8*8*2 of the mean.
        assert found.macs >= 6912 + 4608
        assert found.clock_mhz == 500
        assert found.cycles_total >= found.cycles_npu > 0
        assert found.latency_ms_estimate == pytest.approx(found.cycles_total / 500e3, rel=1e-3)
        assert found.cpu_operations == 0
        assert found.reasons == ()
        assert found.sram_bytes > 0

    def test_a_file_that_does_not(self, tiny_models: Any) -> None:
        found = estimate(tiny_models.split, U55)
        assert found.cpu_operations == 1
        assert [reason.partition(":")[0] for reason in found.reasons] == ["REVERSE_V2"]

    def test_a_system_that_it_does_not_know(self, tiny_models: Any) -> None:
        with pytest.raises(EdgeheadsError, match="Vela refuses the profile's vela section"):
            estimate(tiny_models.int8, Vela("ethos-u55-7", "x", "y"))

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "bad.tflite").write_bytes(b"no model")
        with pytest.raises(RuntimeFailureError, match=r"Vela refused .*bad\.tflite"):
            estimate(tmp_path / "bad.tflite", U55)

    def test_it_is_not_installed(self, tiny_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingDependencyError, match=r"edgeheads\[ethos\]"):
            estimate(tiny_models.int8, U55)


@pytest.mark.slow
class TestReport:
    """On a whole Bundle."""

    @pytest.fixture
    def bundle(self, converted: Any, tmp_path: Path) -> Bundle:
        shutil.copytree(converted.bundles["int8"].folder, tmp_path / "int8")
        return Bundle(tmp_path / "int8")

    def test_coral(self, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _compiler(tmp_path / "bin", _log_script(stand_ins.EDGETPU_LOG), monkeypatch)
        report = check_target(bundle, load_device("coral-usb"))
        checks = {check.name: check for check in report.checks}
        assert checks["every operation maps to the Edge TPU"].passed
        compiled = checks["edgetpu_compiler 16.0.384591198 maps every operation"]
        assert not compiled.passed
        assert compiled.detail.startswith("1 mapped, 4 on the CPU; 1 CONV_2D: More than one")
        stored = json.loads((bundle.folder / "target-coral-usb.json").read_text())
        assert stored["model_sha256"] == bundle.sha256
        assert stored["passed"] is False
        assert len(stored["placements"]) == len(report.placements)

    def test_a_float_file_does_not_fit(self, converted: Any, tmp_path: Path) -> None:
        shutil.copytree(converted.bundles["float32"].folder, tmp_path / "float32")
        report = check_target(Bundle(tmp_path / "float32"), load_device("coral-usb"))
        assert [check.passed for check in report.checks] == [False, False, False]
        assert report.checks[0].detail == "float32; it runs int8"

    def test_ethos_is_called_an_estimate(self, bundle: Bundle) -> None:
        pytest.importorskip("ethosu.vela")
        report = check_target(bundle, load_device("ethos-u65"))
        content = report.as_json()
        assert content["vela_estimate"]["latency_ms_estimate"] > 0
        assert not any(key.startswith("latency") for key in content)
