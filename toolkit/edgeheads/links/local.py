"""The link to the machine edgeheads runs on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from edgeheads.errors import RuntimeFailureError
from edgeheads.links.base import Link, RunResult, checked_name

__all__ = ["LocalLink"]


class LocalLink(Link):
    """Runs commands as child processes, in a temporary folder."""

    python = sys.executable

    def __init__(self) -> None:
        self._folder: Path | None = None

    def __enter__(self) -> LocalLink:
        self._folder = Path(tempfile.mkdtemp(prefix="edgeheads-"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        folder, self._folder = self.folder, None
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """The work folder."""
        if self._folder is None:
            raise RuntimeFailureError("the link is not open; enter it first: with link: ...")
        return self._folder

    def push(self, local: Path, name: str) -> None:
        """Copy a file into the work folder."""
        shutil.copyfile(local, self.folder / checked_name(name))

    def pull(self, name: str, local: Path) -> None:
        """Copy a file out of the work folder."""
        source = self.folder / checked_name(name)
        if not source.is_file():
            raise RuntimeFailureError(f"{self.describe()} has no file {name!r} to copy back")
        shutil.copyfile(source, local)

    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        """Run a child process, in a process group of its own."""
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeFailureError(f"{argv[0]} does not start: {error}") from None
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise RuntimeFailureError(
                f"{Path(argv[0]).name} on {self.describe()} was stopped after "
                f"{timeout_seconds:g} s; ask for less, or allow more time"
            ) from None
        except BaseException:  # Ctrl-C reaches this process only: the child has its own group
            _kill_group(process)
            raise
        return RunResult(process.returncode, stdout, stderr)

    def describe(self) -> str:
        """Return "this machine"."""
        return "this machine"


def _kill_group(process: subprocess.Popen[str]) -> None:
    # A group whose last process has just ended is gone, or not ours to kill (macOS).
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
