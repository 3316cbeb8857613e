"""The link over SSH, by the system's own OpenSSH client."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgeheads.errors import EdgeheadsError
from edgeheads.links.shell import ShellLink

if TYPE_CHECKING:
    from edgeheads.device import DeviceProfile

__all__ = ["Address", "SshLink", "parse_address"]

# No question is ever asked, a host key is always checked, and what a user's configuration adds
# for people (a terminal, forwarded ports, a command of its own) is left out. The rest of
# ~/.ssh/config holds: names, users, ports, keys, agents, jump hosts.
_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=4",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)


@dataclass(frozen=True)
class Address:
    """Where an SSH server listens.

    Attributes:
        destination: [user@]host, as ssh takes it.
        port: None takes the configuration's, or 22.
    """

    destination: str
    port: int | None = None

    def __str__(self) -> str:
        return self.destination if self.port is None else f"{self.destination}, port {self.port}"


def parse_address(text: str) -> Address:
    """Read "pi@kitchen.local", "pi@kitchen.local:2222", "fe80::1" or "pi@[fe80::1]:2222".

    The host may be an alias from ~/.ssh/config.

    Raises:
        EdgeheadsError: it is none of these, or could be read as an option.
    """
    user, at, host = text.rpartition("@")
    port = ""
    if match := re.fullmatch(r"\[([0-9a-fA-F:.]+(?:%[\w.-]+)?)\](?::([^:]*))?", host):
        host, port = match[1], match[2] or ""
        has_port = match[2] is not None
    elif has_port := host.count(":") == 1:
        host, _, port = host.partition(":")
    if (
        not host
        or (at and not user)
        or host.startswith("-")
        or user.startswith("-")
        or re.search(r"[^\w.:%@+~-]", user + host)
    ):
        raise EdgeheadsError(
            f"a host must be like pi@kitchen.local, pi@kitchen.local:2222 or pi@[fe80::1]:2222, "
            f"received {text!r}"
        )
    if has_port and not (port.isdecimal() and 1 <= int(port) <= 65535):
        raise EdgeheadsError(f"the port of {text!r} must be between 1 and 65535, received {port!r}")
    return Address(f"{user}{at}{host}", int(port) if has_port else None)


class SshLink(ShellLink):
    """Runs commands on a machine that is reached over SSH, all over one connection.

        link = SshLink("pi@kitchen.local")

    Args:
        host: [user@]host[:port]; see `parse_address`.
        python: see `ShellLink`.
        venv: see `ShellLink`.
        config: an ssh_config file to use instead of ~/.ssh/config.
    """

    def __init__(
        self, host: str, python: str = "", venv: str = "", config: Path | None = None
    ) -> None:
        super().__init__(python, venv)
        self.address = parse_address(host)
        self._config = config
        self._sockets: Path | None = None

    @classmethod
    def from_profile(cls, profile: DeviceProfile) -> SshLink:
        """Return the link to the profile's host."""
        if not profile.host:
            raise EdgeheadsError(
                f"device {profile.name} is reached over SSH: say where, --host USER@HOST"
            )
        link = cls(profile.host, profile.python, profile.venv)
        device = f" {profile.name}" if profile.name != "ssh" else ""
        link.setup_command = f"edgeheads devices setup{device} --host {profile.host}"
        return link

    def __enter__(self) -> SshLink:
        # The socket's path may have some hundred letters at most, so no long prefix.
        self._sockets = Path(tempfile.mkdtemp(prefix="eh-"))
        try:
            return super().__enter__()
        except BaseException:
            self._remove_sockets()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self._remove_sockets()

    def describe(self) -> str:
        """Return the address."""
        return str(self.address)

    def _remove_sockets(self) -> None:
        folder, self._sockets = self._sockets, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _client(self, command: str, *, is_guard: bool) -> list[str]:
        assert self._sockets is not None  # noqa: S101 - made on entering
        socket = self._sockets / "s"
        if is_guard:
            # That of a lost connection would keep the new one from listening.
            socket.unlink(missing_ok=True)
        options = [
            *_OPTIONS,
            f"ControlPath={socket}",
            f"ControlMaster={'yes' if is_guard else 'no'}",
            "ControlPersist=no",
        ]
        return [
            "ssh",
            *(("-F", str(self._config)) if self._config else ()),
            *("-T", "-a", "-x"),
            *(part for option in options for part in ("-o", option)),
            *(("-p", str(self.address.port)) if self.address.port else ()),
            "--",
            self.address.destination,
            command,
        ]

    def _reason(self, words: str) -> str:
        for sign, advice in self._advice():
            if re.search(sign, words):
                return advice
        lines = [line for line in words.strip().splitlines() if line.strip()]
        said = lines[-1] if lines else "no answer"
        return f"ssh says: {said}; try: {self._by_hand()}"

    def _by_hand(self) -> str:
        port = f" -p {self.address.port}" if self.address.port else ""
        return f"ssh{port} {self.address.destination}"

    def _advice(self) -> list[tuple[str, str]]:
        """Return what ssh says, as a pattern, and what it means to a user. The first one counts."""
        name = self.address.destination.rpartition("@")[2]
        known = f"[{name}]:{self.address.port}" if self.address.port else name
        by_hand = self._by_hand()
        return [
            (
                "IDENTIFICATION HAS CHANGED|Offending .* key",
                f"its host key has changed; if the device was installed anew, run: ssh-keygen -R "
                f"'{known}', then {by_hand} and compare the fingerprint; if not, another machine "
                "answers in its place",
            ),
            (
                "Host key verification failed|No .* host key is known",
                f"its host key is not known; run: {by_hand} once, and compare the fingerprint",
            ),
            (
                "Could not resolve|Name or service not known|nodename nor servname",
                f"there is no host of the name {name}; check the name and the network",
            ),
            (
                "Connection refused",
                "nothing listens there; check the port, and that the device runs an SSH server",
            ),
            (
                "timed out|No route to host|unreachable",
                "it does not answer; check its power and the network",
            ),
            (
                "Permission denied|Too many authentication failures|sign_and_send_pubkey",
                f"it refuses the login; bring your key there with: ssh-copy-id "
                f"{by_hand.removeprefix('ssh ')}, or add it to the agent with: ssh-add",
            ),
        ]
