"""Links to a device that runs a POSIX shell: the verbs as small scripts, over some connection."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import subprocess
import tempfile
import threading
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, TypeVar

from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links import scripts
from edgeheads.links.base import Link, RunResult, checked_name
from edgeheads.links.client import Guard, end_client, receive, start_client

__all__ = ["DEFAULT_VENV", "ShellLink"]

T = TypeVar("T")
LinkT = TypeVar("LinkT", bound="ShellLink")

# Where `edgeheads devices setup` puts an interpreter; ~ is the home of the user on the device.
DEFAULT_VENV = "~/.cache/edgeheads/venv"

_FULL_SIGNS = ("No space left on device", "File too large", "Disk quota exceeded")
_ATTEMPTS = 3

# The exit code of ssh and adb themselves when a connection ends under them.
_LOST_EXIT_CODE = 255


class _DroppedError(Exception):
    """The connection was lost while something ran over it; holds the client's last words."""


class ShellLink(Link):
    """What links over a remote shell have in common.

    A guard on the device holds the work folder for as long as the connection lives. When the
    connection is lost, the link makes it anew and goes on where it was: a file is copied again, a
    command is found still running. When that fails, or when this process dies, the guard kills
    the command and removes the folder after `grace_seconds`.

    Args:
        python: starts Python on the device; empty takes the virtual environment's where there is
            one, and python3 elsewhere.
        venv: the virtual environment on the device.
    Attributes:
        venv: its path there, once the link is open.
        has_venv: whether it is there.
    """

    grace_seconds: ClassVar[int] = 60
    connect_seconds: ClassVar[float] = 30.0

    def __init__(self, python: str = "", venv: str = "") -> None:
        self._wanted_python = python
        self._wanted_venv = venv or DEFAULT_VENV
        self._marker = f"edgeheads-{secrets.token_hex(8)}"
        self._guard: Guard | None = None
        self._folder = ""
        self._runs = 0
        self.venv = self._wanted_venv
        self.has_venv = False

    @abstractmethod
    def _client(self, command: str, *, is_guard: bool) -> list[str]:
        """Return the local command that hands the text to the shell of the device.

        The guard's is started first, and lives as long as the link.
        """

    @abstractmethod
    def _reason(self, words: str) -> str:
        """Return why the client could not connect and what to do, from what it said."""

    def _prefix(self) -> list[str]:
        """Return what stands before every command on the device."""
        return []

    def __enter__(self: LinkT) -> LinkT:
        self._open("")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # Nothing may hide the error that ends the block; what fails here is the guard's task.
            with contextlib.suppress(RuntimeFailureError, subprocess.TimeoutExpired):
                self._steadily(lambda: self._call(scripts.REMOVE, (), seconds=30))
        finally:
            self._close()
            self._folder = ""

    def push(self, local: Path, name: str) -> None:
        """Stream a file into the work folder, where it appears whole or not at all."""
        checked_name(name)
        self._require_open()
        size = local.stat().st_size

        def copy() -> RunResult:
            with local.open("rb") as file:
                arguments = (name, str(size))
                return self._call(scripts.PUSH, arguments, _copy_seconds(size), stdin=file)

        result = self._timed(copy, f"copying {local.name} to")
        if result.exit_code != 0:
            raise self._failure(f"{local.name} could not be copied to", result.stderr)

    def pull(self, name: str, local: Path) -> None:
        """Stream a file out of the work folder."""
        checked_name(name)
        self._require_open()
        self._timed(lambda: self._receive(name, local), f"copying {name!r} from")

    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        """Run a command in a process group of its own, through lost connections."""
        self._require_open()
        self._runs += 1
        number = str(self._runs)
        deadline = time.monotonic() + timeout_seconds
        script, arguments = scripts.RUN, (number, *argv)
        lost = 0
        while True:
            try:
                result = self._call(script, arguments, deadline - time.monotonic())
            except _DroppedError as error:
                lost += 1
                self._reopen(str(error), lost)
                script, arguments = scripts.ATTACH, (number,)
                continue
            except subprocess.TimeoutExpired:
                self._kill()
                raise RuntimeFailureError(
                    f"{_short(argv[0])} on {self.describe()} was stopped after "
                    f"{timeout_seconds:g} s; ask for less, or allow more time"
                ) from None
            except BaseException:  # Ctrl-C reaches this process only
                self._kill()
                raise
            if "edgeheads-not-started" in result.stderr:
                script, arguments = scripts.RUN, (number, *argv)
                continue
            return self._checked(argv[0], result)

    def facts(self) -> dict[str, list[str]]:
        """Return what the device tells without Python: key to the values it gave."""
        result = self._timed(lambda: self._call(scripts.DESCRIBE, (), 30), "asking")
        found: dict[str, list[str]] = {}
        for line in result.stdout.splitlines():
            key, _, value = line.partition(" ")
            if value.strip():
                found.setdefault(key, []).append(value.strip())
        return found

    def _checked(self, command: str, result: RunResult) -> RunResult:
        if "edgeheads-no-command" in result.stderr:
            raise RuntimeFailureError(
                f"{self.describe()} has no {command}; "
                + (
                    "install Python 3.8 or newer there, or name it with --python"
                    if command == self.python
                    else "install it there"
                )
            )
        if "edgeheads-no-status" in result.stderr:
            raise RuntimeFailureError(
                f"{_short(command)} on {self.describe()} ended without a trace; its disk may be "
                "full or its memory short: free some, and run the command again"
            )
        if result.exit_code != 0 and any(sign in result.stderr for sign in _FULL_SIGNS):
            raise self._failure(f"{_short(command)} could not write on", result.stderr)
        return result

    # --- the connection ---------------------------------------------------------------------------

    def _open(self, folder: str) -> None:
        """Start the guard, and read what it says of the device."""
        words = ("sh", "-c", scripts.GUARD, "sh")
        values = (self._marker, self._wanted_venv, str(self.grace_seconds), folder)
        argv = self._client(shlex.join([*self._prefix(), *words, *values]), is_guard=True)
        guard = Guard(argv, self._marker, self.connect_seconds)
        if guard.failure:
            raise RuntimeFailureError(self._opening_failure(guard.failure))
        self._guard, answers = guard, guard.answers
        self._folder = answers["folder"]
        self.venv = answers["venv"]
        self.has_venv = "python" in answers
        self.python = self._wanted_python or answers.get("python", "python3")

    def _opening_failure(self, words: str) -> str:
        if any(sign in words for sign in (*_FULL_SIGNS, "mktemp", "mkdir")):
            return str(self._failure("no work folder can be made on", words))
        return f"{self.describe()} cannot be used: {self._reason(words)}"

    def _close(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()

    def _reopen(self, words: str, lost: int) -> None:
        """Connect again after a loss, to the same work folder."""
        last = words
        for attempt in range(_ATTEMPTS if lost < _ATTEMPTS else 0):
            self._close()
            time.sleep(attempt)
            try:
                self._open(self._folder)
                return
            except RuntimeFailureError as error:
                last = str(error)
        self._close()
        said = " ".join(last.split()) or "no reason was given"
        raise RuntimeFailureError(
            f"the connection to {self.describe()} was lost and could not be made again ({said}); "
            f"what ran there is stopped, and its files are removed, within {self.grace_seconds} s: "
            "check the network and the power, then run the command again"
        )

    def _steadily(self, action: Callable[[], T]) -> T:
        """Do what may be done twice, again when the connection is lost in the middle of it."""
        lost = 0
        while True:
            try:
                if self._guard is None and self._folder:
                    raise RuntimeFailureError(f"the connection to {self.describe()} is lost")
                return action()
            except _DroppedError as error:
                lost += 1
                self._reopen(str(error), lost)

    def _timed(self, action: Callable[[], T], doing: str) -> T:
        try:
            return self._steadily(action)
        except subprocess.TimeoutExpired as error:
            raise RuntimeFailureError(
                f"{doing} {self.describe()} took more than {error.timeout:.0f} s; "
                "check the connection, then run the command again"
            ) from None

    def _kill(self) -> None:
        with contextlib.suppress(RuntimeFailureError, subprocess.TimeoutExpired):
            self._steadily(lambda: self._call(scripts.KILL, (), seconds=30))

    def _require_open(self) -> None:
        if not self._folder:
            raise RuntimeFailureError("the link is not open; enter it first: with link: ...")

    # --- one script -------------------------------------------------------------------------------

    def _argv(self, script: str, arguments: tuple[str, ...]) -> list[str]:
        """Return the local command for a script.

        It first writes the marker: what a login shell prints before it is not the script's.
        """
        text = f"LC_ALL=C; export LC_ALL; echo {self._marker}; echo {self._marker} >&2\n{script}"
        words = [*self._prefix(), "sh", "-c", text, "sh", self._folder, *arguments]
        return self._client(shlex.join(words), is_guard=False)

    def _call(
        self,
        script: str,
        arguments: tuple[str, ...],
        seconds: float,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
    ) -> RunResult:
        process = start_client(self._argv(script, arguments), stdin, subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(timeout=max(0.0, seconds))
        except BaseException:
            end_client(process)
            raise
        out, err = (text.decode("utf-8", "replace") for text in (stdout, stderr))
        if process.returncode != 0 or self._marker not in out:
            self._require_connection(process.returncode, self._marker in out, err)
        return RunResult(process.returncode, self._after_marker(out), self._after_marker(err))

    def _receive(self, name: str, local: Path) -> None:
        """Copy the file's bytes as they come; nothing replaces the local file before the last."""
        part = local.with_name(f"{local.name}.part")
        with tempfile.TemporaryFile() as said:
            process = start_client(self._argv(scripts.PULL, (name,)), subprocess.DEVNULL, said)
            watch = threading.Timer(_copy_seconds(1 << 30), process.kill)
            watch.start()
            try:
                started, size = receive(process, self._marker, part)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise EdgeheadsError(
                    f"{local} cannot be written: {error.strerror}; free some space, or check "
                    "who may write there"
                ) from None
            finally:
                watch.cancel()
                end_client(process)
            said.seek(0)
            words = said.read().decode("utf-8", "replace")
        whole = size.isdecimal() and part.stat().st_size == int(size)
        if whole and process.returncode == 0:
            part.replace(local)
            return
        part.unlink(missing_ok=True)
        self._require_connection(process.returncode, started, words)
        if size == "absent":
            raise RuntimeFailureError(f"{self.describe()} has no file {name!r} to copy back")
        raise self._failure(f"{name!r} could not be copied from", self._after_marker(words))

    def _require_connection(self, exit_code: int, started: bool, words: str) -> None:
        """Raise if a script ended because the connection did."""
        # The guard ends with the connection, if a moment later.
        seconds = 0.1 if started and exit_code != _LOST_EXIT_CODE else 1.0
        if self._guard is None or self._guard.ends_within(seconds) or not started:
            raise _DroppedError(words)

    def _after_marker(self, text: str) -> str:
        _, found, rest = text.partition(f"{self._marker}\n")
        return rest if found else text

    def _failure(self, what: str, words: str) -> RuntimeFailureError:
        last = (words.strip().splitlines() or ["it gave no reason"])[-1]
        advice = "run the command again"
        if any(sign in words for sign in _FULL_SIGNS):
            advice = "free some space there, or set TMPDIR there to a larger disk"
        return RuntimeFailureError(f"{what} {self.describe()}: {last}; {advice}")


def _copy_seconds(size: int) -> float:
    """Return how long a copy may take: a slow radio link moves some 50 kB a second."""
    return 120.0 + size / 50e3


def _short(command: str) -> str:
    return command.rpartition("/")[2]
