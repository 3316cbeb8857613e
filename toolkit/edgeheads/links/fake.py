"""A link that leads nowhere, for tests of code that uses one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from edgeheads.errors import RuntimeFailureError
from edgeheads.links.base import Link, RunResult, checked_name

__all__ = ["FakeLink"]


class FakeLink(Link):
    """Records what it is asked, and answers as the test wants.

        def respond(argv, files):
            files["result.json"] = b"{}"
            return RunResult(0, "", "")

        link = FakeLink(respond)

    Args:
        respond: called for every `run` with the command and the device's files; it may change
            them. Without it every command succeeds and does nothing.
    Attributes:
        calls: every verb with its arguments, in order: ("push", "a.bin"), ("run", ["ls"]).
        files: the device's files, name to content; empty again once the link is left.
        is_open: whether the link has been entered and not left.
    """

    def __init__(
        self, respond: Callable[[list[str], dict[str, bytes]], RunResult] | None = None
    ) -> None:
        self._respond = respond
        self.calls: list[tuple[str, str | list[str]]] = []
        self.files: dict[str, bytes] = {}
        self.is_open = False

    def __enter__(self) -> FakeLink:
        self.is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.is_open = False
        self.files.clear()

    def push(self, local: Path, name: str) -> None:
        """Remember the file's content."""
        self._record("push", checked_name(name))
        self.files[name] = local.read_bytes()

    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        """Return what `respond` returns."""
        self._record("run", list(argv))
        return RunResult(0, "", "") if self._respond is None else self._respond(argv, self.files)

    def pull(self, name: str, local: Path) -> None:
        """Write the content that was pushed, or that `respond` put there."""
        self._record("pull", checked_name(name))
        if name not in self.files:
            raise RuntimeFailureError(f"{self.describe()} has no file {name!r} to copy back")
        local.write_bytes(self.files[name])

    def describe(self) -> str:
        """Return "a fake device"."""
        return "a fake device"

    def _record(self, verb: str, argument: str | list[str]) -> None:
        if not self.is_open:
            raise RuntimeFailureError("the link is not open; enter it first: with link: ...")
        self.calls.append((verb, argument))
