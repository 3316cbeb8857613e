"""Arm's Vela compiler: what a file would cost on an Ethos-U. Its figures are estimates."""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeheads.device import Vela
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError

__all__ = ["VelaEstimate", "estimate"]

_TIMEOUT_SECONDS = 900
_MAIN = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
_SYSTEMS = "Arm/vela.ini"
_KIB = 1024


@dataclass(frozen=True)
class VelaEstimate:
    """What Vela says. Nothing here was measured.

    Attributes:
        version: of Vela.
        system: accelerator, system configuration and memory mode.
        clock_mhz: of the accelerator.
        cycles_total: of one inference.
        cycles_npu: of them, those that compute.
        latency_ms_estimate: cycles over clock.
        sram_bytes: used at the most.
        dram_bytes: used at the most.
        flash_bytes: weights and commands in flash.
        macs: multiply-accumulates of one inference.
        npu_operations: of Vela's own graph, which is finer than the file's.
        cpu_operations: that the accelerator leaves to the CPU: whose time is not in the estimate.
        reasons: why, one text for each operation of the file that does not fit.
    """

    version: str
    system: str
    clock_mhz: float
    cycles_total: int
    cycles_npu: int
    latency_ms_estimate: float
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    macs: int
    npu_operations: int
    cpu_operations: int
    reasons: tuple[str, ...]


def estimate(model: Path, settings: Vela) -> VelaEstimate:
    """Compile a file with Vela, and return what it expects of it.

    Raises:
        MissingDependencyError: Vela is not installed.
        EdgeheadsError: Vela has no such accelerator, system configuration or memory mode.
        RuntimeFailureError: it refused the file.
    """
    if importlib.util.find_spec("ethosu") is None:
        raise MissingDependencyError("ethos-u-vela", "ethos", "an estimate for Arm Ethos-U")
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        shutil.copyfile(model, Path(folder, "model.tflite"))
        said = _run(model, settings, Path(folder))
        tables = list(Path(folder, "out").glob("*_summary_*.csv"))
        if len(tables) != 1:
            raise _refused(model, said)
        with tables[0].open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    if not rows:
        raise _refused(model, said)
    return _parsed(rows[0], said, settings)


def _run(model: Path, settings: Vela, folder: Path) -> str:
    options = {
        "--accelerator-config": settings.accelerator,
        "--system-config": settings.system_config,
        "--memory-mode": settings.memory_mode,
        "--config": _SYSTEMS,
        "--output-dir": str(folder / "out"),
    }
    arguments = [part for option in options.items() for part in option]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MAIN, "model.tflite", *arguments, "--show-cpu-operations"],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeFailureError(
            f"Vela took more than {_TIMEOUT_SECONDS} s for {model}; take a smaller model"
        ) from None
    said = done.stdout + done.stderr
    if wrong := re.search(
        r"(invalid choice: .*?) \(choose|(Invalid .*|.*[Cc]onfig.* not found.*)", said
    ):
        raise EdgeheadsError(f"Vela refuses the profile's vela section: {wrong[1] or wrong[2]}")
    if done.returncode != 0:
        raise _refused(model, said)
    return said


def _refused(model: Path, said: str) -> RuntimeFailureError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return RuntimeFailureError(
        f"Vela refused {model}: {lines[-1] if lines else 'it said nothing'}; "
        "convert the model to int8 with fixed sizes"
    )


def _parsed(row: dict[str, str], said: str, settings: Vela) -> VelaEstimate:
    def figure(key: str) -> float:
        return float(row[key])

    flash = figure("on_chip_flash_memory_used") + figure("off_chip_flash_memory_used")
    return VelaEstimate(
        version=metadata.version("ethos-u-vela"),
        system=f"{settings.accelerator}, {settings.system_config}, {settings.memory_mode}",
        clock_mhz=figure("core_clock") / 1e6,
        cycles_total=int(figure("cycles_total")),
        cycles_npu=int(figure("cycles_npu")),
        latency_ms_estimate=1e3 * figure("inference_time"),
        sram_bytes=round(figure("sram_memory_used") * _KIB),
        dram_bytes=round(figure("dram_memory_used") * _KIB),
        flash_bytes=round(flash * _KIB),
        macs=int(figure("nn_macs")),
        npu_operations=_operators(said, "NPU"),
        cpu_operations=_operators(said, "CPU"),
        reasons=tuple(_reasons(said)),
    )


def _operators(said: str, where: str) -> int:
    found = re.search(rf"^{where} operators = (\d+)", said, re.MULTILINE)
    return int(found[1]) if found else 0


def _reasons(said: str) -> list[str]:
    """Return Vela's warnings: the line with the operation, then the reason's first sentence."""
    pattern = r"operators\) operator: (\S+), ofm: '([^']*)'\s*Reason: (.+)"
    return [f"{op}: {reason.strip()}" for op, _, reason in re.findall(pattern, said)]
