"""Google's Edge TPU compiler, where it is installed: what it says it mapped."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeheads.errors import RuntimeFailureError

__all__ = ["CompilerLog", "MappedOps", "compile_for_edgetpu", "parse_log"]

_COMMAND = "edgetpu_compiler"
_TIMEOUT_SECONDS = 600
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# A line of its table: the operation, how many there are, what became of them.
_ROW = re.compile(r"^([A-Z][A-Z0-9_]+)\s+(\d+)\s+(\S.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class MappedOps:
    """A line of the compiler's table.

    Attributes:
        op: the operation.
        count: how many the line is about.
        status: "Mapped to Edge TPU", or why they are not.
    """

    op: str
    count: int
    status: str


@dataclass(frozen=True)
class CompilerLog:
    """What the compiler says. A figure is None where this version does not print it.

    Attributes:
        version: of the compiler.
        mapped: operations on the Edge TPU.
        on_cpu: operations that are left.
        subgraphs: parts of the graph on the Edge TPU.
        cached_bytes: parameters that stay on the chip.
        streamed_bytes: parameters that are sent anew for every inference.
        ops: the table.
    """

    version: str | None
    mapped: int | None
    on_cpu: int | None
    subgraphs: int | None
    cached_bytes: int | None
    streamed_bytes: int | None
    ops: tuple[MappedOps, ...]


def compile_for_edgetpu(model: Path) -> CompilerLog | None:
    """Compile a file with the compiler on the PATH, and throw the result away.

    Returns:
        What it said; None where there is no compiler.

    Raises:
        RuntimeFailureError: it refused the file.
    """
    command = shutil.which(_COMMAND)
    if command is None:
        return None
    with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
        copy = Path(folder, "model.tflite")
        shutil.copyfile(model, copy)
        try:
            done = subprocess.run(
                [command, "-s", "-o", folder, str(copy)],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeFailureError(f"{command} failed: {error}") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeFailureError(
            f"{_COMMAND} refused {model}: {said[-1] if said else f'exit {done.returncode}'}; "
            "convert the model to int8 with fixed sizes"
        )
    return parse_log(done.stdout)


def parse_log(text: str) -> CompilerLog:
    """Read what the compiler prints with -s."""
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    return CompilerLog(
        version[1] if version else None,
        _count(text, "Number of operations that will run on Edge TPU"),
        _count(text, "Number of operations that will run on CPU"),
        _count(text, "Number of Edge TPU subgraphs"),
        _size(text, "On-chip memory used for caching model parameters"),
        _size(text, "Off-chip memory used for streaming uncached model parameters"),
        tuple(MappedOps(op, int(count), status) for op, count, status in _ROW.findall(text)),
    )


def _count(text: str, title: str) -> int | None:
    found = re.search(rf"{title}: (\d+)", text)
    return int(found[1]) if found else None


def _size(text: str, title: str) -> int | None:
    found = re.search(rf"{title}: ([\d.]+)\s*(B|KiB|MiB|GiB)\b", text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None
