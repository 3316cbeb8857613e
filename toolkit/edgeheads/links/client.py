"""The programs on this machine (ssh, adb) that a link over a shell talks through."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from edgeheads.errors import RuntimeFailureError

__all__ = ["Guard", "end_client", "receive", "start_client"]


def start_client(
    argv: list[str], stdin: IO[bytes] | int, stderr: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a client whose standard output is read through a pipe.

    Raises:
        RuntimeFailureError: there is no such program.
    """
    try:
        # A session of its own: Ctrl-C must not end the connection that cleans up.
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise RuntimeFailureError(
            f"{argv[0]} does not start: {error.strerror}; install it on this machine"
        ) from None


def end_client(process: subprocess.Popen[bytes]) -> None:
    """Kill a client. Its pipes are closed unread: ssh's connection may hold their other ends."""
    process.kill()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()


def receive(process: subprocess.Popen[bytes], marker: str, local: Path) -> tuple[bool, str]:
    """Write a file's bytes as they come: after the line of the marker, and a line of its size.

    Returns:
        Whether the marker came; the line after it.

    Raises:
        OSError: the local file cannot be written.
    """
    assert process.stdout is not None  # noqa: S101 - `start_client` asks for it
    line = b" "
    started = False
    while line and not started:
        line = process.stdout.readline()
        started = line.strip() == marker.encode()
    size = process.stdout.readline().strip().decode()
    with local.open("wb") as file:
        shutil.copyfileobj(process.stdout, file)
    process.wait()
    return started, size


class Guard:
    """The client that holds a connection; `scripts.GUARD` runs at its other end.

    Args:
        argv: starts it.
        marker: begins each line of the script's: a login shell may put lines of its own between.
        seconds: that it may take until it is ready.
    Attributes:
        answers: what the script says of the device, {key: value}.
        failure: why it is not ready; empty if it is. One that failed is closed.
    """

    def __init__(self, argv: list[str], marker: str, seconds: float) -> None:
        with tempfile.TemporaryFile() as said:
            self._process = start_client(argv, subprocess.PIPE, said)
            try:
                self.answers = self._read(marker, seconds)
            except BaseException:
                self.close()
                raise
            self.failure = "" if "ready" in self.answers else self._why_not_ready(said, seconds)

    def _read(self, marker: str, seconds: float) -> dict[str, str]:
        """Read the script's lines up to "ready"; nothing if it took too long."""
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - `start_client` asks for it
        found: dict[str, str] = {}
        deadline = time.monotonic() + seconds
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while "ready" not in found:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return {}
                block = os.read(stdout.fileno(), 65536)
                received += block
                *lines, received = received.split(b"\n")
                for line in lines:
                    mark, _, text = line.decode("utf-8", "replace").partition(" ")
                    if mark == marker:
                        key, _, value = text.partition(" ")
                        found[key] = value
                if not block:
                    break
        return found

    def _why_not_ready(self, said: IO[bytes], seconds: float) -> str:
        is_silent = self._process.poll() is None
        self.close()
        if "lost" in self.answers:
            return "its work folder is gone"
        said.seek(0)
        if words := said.read().decode("utf-8", "replace"):
            return words
        return f"timed out after {seconds:g} s" if is_silent else f"exit {self._process.returncode}"

    def ends_within(self, seconds: float) -> bool:
        """Return whether the connection has ended, or does so within a time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End the connection: the script at its other end sees the end of its input."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if not self.ends_within(5):
            self._process.kill()
            self._process.wait()
