"""A real OpenSSH server on the loopback interface, as an ordinary process with files of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeheads.links.ssh import SshLink

SSHD = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))


@dataclass
class SshServer:
    """The server, and the client's files that lead to it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "client_config"

    @property
    def work_folders(self) -> list[Path]:
        """The work folders that links have on the "device" now."""
        return list((self.folder / "tmp").glob("edgeheads-*"))

    def link(self, **options: str) -> SshLink:
        return SshLink(self.host, config=self.config, **options)

    def connections(self) -> list[int]:
        """Return the process ids of the server's connections, oldest first."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(pid) for pid in listed.stdout.split()]

    def drop(self, with_server: bool = False) -> None:
        """End every connection from the server's side, as a lost network does for the client."""
        connections = self.connections()
        if with_server:
            self.stop()
        for pid in connections:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def make_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


@contextmanager
def serve(folder: Path, **environment: str) -> Iterator[SshServer]:
    """Run a server; the environment is that of every login."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh: apt-get install openssh-server openssh-client")
    folder.chmod(0o700)
    (folder / "tmp").mkdir(exist_ok=True)
    host_key, user_key = make_key(folder / "host_key"), make_key(folder / "user_key")
    shutil.copyfile(f"{user_key}.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    values = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), **environment}
    Path(values["HOME"]).mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'authorized_keys'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv {' '.join(f'{name}={value}' for name, value in values.items())}\n"
    )
    public = Path(f"{host_key}.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    (folder / "client_config").write_text(
        f"IdentityFile {user_key}\nIdentitiesOnly yes\nIdentityAgent none\n"
        f"UserKnownHostsFile {folder / 'known_hosts'}\nGlobalKnownHostsFile none\n"
    )
    # sshd looks for this folder at its start, wherever it listens.
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log
        )
    server = SshServer(folder, port, process, values)
    try:
        _wait_until_it_listens(server)
        yield server
    finally:
        server.drop()
        server.stop()


def _wait_until_it_listens(server: SshServer) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", server.port), 1).close()
            return
        except OSError:
            if server.process.poll() is not None:
                break
            time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {(server.folder / 'log').read_text()[-300:]}")
