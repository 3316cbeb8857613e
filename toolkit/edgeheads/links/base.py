"""The seam between edgeheads and a device: four verbs and a private work folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from edgeheads.errors import EdgeheadsError

if TYPE_CHECKING:
    from edgeheads.device import DeviceProfile

__all__ = ["Link", "RunResult", "checked_name"]

LinkT = TypeVar("LinkT", bound="Link")


@dataclass(frozen=True)
class RunResult:
    """What a command left behind.

    Attributes:
        exit_code: 0 for success; negative, or 128 and more, for a command that a signal ended.
        stdout: its text.
        stderr: its text.
    """

    exit_code: int
    stdout: str
    stderr: str


class Link(ABC):
    """A connection to one device.

    Entering a link makes a private work folder on the device; leaving it removes the folder with
    everything in it, also after an exception. The verbs work in between only. A file there is
    known by a plain name, relative to the work folder, which is also where commands run.

    Attributes:
        python: the argument that starts Python on the device.
        setup_command: what a user runs to bring an interpreter there; empty: pip, on the device.
    """

    python: str = "python3"
    setup_command: str = ""

    @classmethod
    def from_profile(cls: type[LinkT], profile: DeviceProfile) -> LinkT:
        """Return the link to the profile's device. A link that needs an address overrides this."""
        return cls()

    @abstractmethod
    def push(self, local: Path, name: str) -> None:
        """Copy a local file to the device, over one of the same name."""

    @abstractmethod
    def run(self, argv: list[str], timeout_seconds: float) -> RunResult:
        """Run a command in the work folder, and wait for it. No shell sees the arguments.

        Raises:
            RuntimeFailureError: the device cannot be reached, there is no such command, or the
                time is up; the command and its children are then dead.
        """

    @abstractmethod
    def pull(self, name: str, local: Path) -> None:
        """Copy a file from the device, over a local one.

        Raises:
            RuntimeFailureError: there is no such file.
        """

    @abstractmethod
    def describe(self) -> str:
        """Return where this link leads, for messages."""

    @abstractmethod
    def __enter__(self: LinkT) -> LinkT:
        """Make the work folder."""

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the work folder."""


def checked_name(name: str) -> str:
    """Return the name if it is a plain file name, which cannot leave the work folder."""
    if name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise EdgeheadsError(
            f"a file on a device is known by a plain name, received {name!r}; leave the folder out"
        )
    return name
