"""The link over SSH, against a real OpenSSH server on the loopback interface."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import SshServer, make_key, serve

from conftest import TinyModels
from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links.base import RunResult
from edgeheads.links.shell import ShellLink
from edgeheads.links.ssh import Address, SshLink, parse_address
from edgeheads.runtime import DeviceSession

HOSTILE = "a'b\"c $HOME `touch pwned` $(touch pwned);touch pwned\n&& * ? ~ \\ -rf"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serve(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends with no work folder and no connection on the device."""
    yield
    if "server" in request.fixturenames:
        running: SshServer = request.getfixturevalue("server")
        assert _soon(lambda: not running.work_folders)
        assert _soon(lambda: not running.connections())


def _soon(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def _is_running(marker: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    return any(line.startswith("sleep") and marker in line for line in listed.splitlines())


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("kitchen", Address("kitchen")),
            ("pi@kitchen.local", Address("pi@kitchen.local")),
            ("pi@kitchen.local:2222", Address("pi@kitchen.local", 2222)),
            ("fe80::1%eth0", Address("fe80::1%eth0")),
            ("pi@fe80::1", Address("pi@fe80::1")),
            ("pi@[fe80::1]:2222", Address("pi@fe80::1", 2222)),
            ("[::1]", Address("::1")),
        ],
    )
    def test_it_reads(self, text: str, expected: Address) -> None:
        assert parse_address(text) == expected

    @pytest.mark.parametrize(
        "text", ["", "-oProxyCommand=x", "-l@host", "@host", "a b", "host;x", "$(x)", "pi@", "a\n"]
    )
    def test_it_refuses(self, text: str) -> None:
        with pytest.raises(EdgeheadsError, match=r"a host must be like pi@kitchen\.local"):
            parse_address(text)

    @pytest.mark.parametrize("port", ["0", "65536", "x", ""])
    def test_it_refuses_ports(self, port: str) -> None:
        with pytest.raises(EdgeheadsError, match=r"must be between 1 and 65535, received"):
            parse_address(f"pi@kitchen:{port}")


class TestRun:
    def test_output_exit_code_and_arguments(self, server: SshServer) -> None:
        code = "import sys; print(sys.argv[1], end=''); print('e', file=sys.stderr); sys.exit(7)"
        with server.link() as link:
            assert link.run(["python3", "-c", code, HOSTILE], 30) == RunResult(7, HOSTILE, "e\n")
            assert link.run(["ls", "-A"], 30).stdout == ""

    def test_what_the_login_shell_prints_is_not_the_command_s(self, server: SshServer) -> None:
        noise = Path(server.environment["HOME"], ".bashrc")
        noise.write_text("echo noise; echo noise >&2\n")
        try:
            with server.link() as link:
                assert link.run(["echo", "out"], 30) == RunResult(0, "out\n", "")
        finally:
            noise.unlink()

    def test_a_signal_shows_in_the_exit_code(self, server: SshServer) -> None:
        with server.link() as link:
            assert link.run(["sh", "-c", "kill -SEGV $$"], 30).exit_code == 128 + 11

    def test_an_exit_code_that_ssh_uses_itself(self, server: SshServer) -> None:
        with server.link() as link:
            assert link.run(["sh", "-c", "exit 255"], 30).exit_code == 255

    def test_a_hung_command_is_killed_with_its_children(self, server: SshServer) -> None:
        with server.link() as link:
            with pytest.raises(RuntimeFailureError, match=r"sh on .* was stopped after 0\.5 s"):
                link.run(["sh", "-c", "sleep 71.1 & sleep 71.1"], 0.5)
            assert _soon(lambda: not _is_running("71.1"))
            assert link.run(["echo", "on"], 30).stdout == "on\n"

    def test_ctrl_c_kills_the_command(
        self, server: SshServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        communicate = subprocess.Popen.communicate
        waits = iter([KeyboardInterrupt])

        def interrupted(
            process: subprocess.Popen[bytes],
            input: bytes | None = None,
            timeout: float | None = None,
        ) -> object:
            if "71.2" in str(process.args):
                for error in waits:
                    assert _soon(lambda: _is_running("71.2"))
                    raise error
            return communicate(process, input, timeout)

        monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
        with pytest.raises(KeyboardInterrupt), server.link() as link:
            link.run(["sleep", "71.2"], 60)
        assert _soon(lambda: not _is_running("71.2"))

    def test_an_unknown_command(self, server: SshServer) -> None:
        expected = "has no nope; install it there"
        with server.link() as link, pytest.raises(RuntimeFailureError, match=expected):
            link.run(["nope"], 30)


class TestFiles:
    def test_a_hostile_name(self, server: SshServer, tmp_path: Path) -> None:
        name = HOSTILE.replace("\\", "")
        (tmp_path / "there").write_bytes(b"content")
        with server.link() as link:
            link.push(tmp_path / "there", name)
            link.pull(name, tmp_path / "back")
            assert link.run(["ls", "-A"], 30).stdout == f"{name}\n"
        assert (tmp_path / "back").read_bytes() == b"content"

    def test_an_empty_file(self, server: SshServer, tmp_path: Path) -> None:
        (tmp_path / "there").touch()
        with server.link() as link:
            link.push(tmp_path / "there", "empty")
            link.pull("empty", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b""

    def test_the_work_folder_is_private(self, server: SshServer) -> None:
        with server.link():
            (folder,) = server.work_folders
            assert folder.stat().st_mode & 0o777 == 0o700

    def test_a_local_folder_that_is_not_there(self, server: SshServer, tmp_path: Path) -> None:
        (tmp_path / "there").touch()
        with server.link() as link:
            link.push(tmp_path / "there", "file")
            with pytest.raises(EdgeheadsError, match="cannot be written: No such file"):
                link.pull("file", tmp_path / "absent" / "back")


class TestLostConnections:
    def test_an_idle_one_is_made_again(self, server: SshServer, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(b"x" * 100_000)
        with server.link() as link:
            link.push(tmp_path / "there", "file")
            server.drop()
            link.pull("file", tmp_path / "back")
            server.drop()
            link.push(tmp_path / "there", "again")
            assert link.run(["ls"], 30).stdout == "again\nfile\n"
        assert (tmp_path / "back").stat().st_size == 100_000

    def test_a_command_goes_on_and_is_found_again(self, server: SshServer) -> None:
        with server.link() as link:
            timer = threading.Timer(0.5, server.drop)
            timer.start()
            result = link.run(["sh", "-c", "echo begun; sleep 1.5; echo done; exit 5"], 30)
            timer.join()
        assert result == RunResult(5, "begun\ndone\n", "")

    def test_a_device_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ShellLink, "grace_seconds", 1)
        monkeypatch.setattr("edgeheads.links.shell._ATTEMPTS", 2)
        with serve(tmp_path) as mine:

            def vanish() -> None:
                mine.drop(with_server=True)

            with mine.link() as link:
                threading.Timer(0.5, vanish).start()
                with pytest.raises(RuntimeFailureError) as caught:
                    link.run(["sleep", "71.3"], 30)
            assert "was lost and could not be made again" in str(caught.value)
            assert "nothing listens there" in str(caught.value)
            assert "its files are removed, within 1 s" in str(caught.value)
            assert _soon(lambda: not mine.work_folders and not _is_running("71.3"), 10)

    def test_a_client_that_is_killed(self, server: SshServer) -> None:
        """Nobody is left to clean up but the device itself."""
        code = (
            "import os; from pathlib import Path; from edgeheads.links.ssh import SshLink;"
            f"SshLink.grace_seconds = 1; link = SshLink({server.host!r}, config="
            f"Path({str(server.config)!r})); link.__enter__(); print('open', flush=True);"
            "os._exit(9)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "open\n"
        assert server.work_folders
        assert _soon(lambda: not server.work_folders, 8)


class TestNoConnection:
    def _reason(self, link: SshLink) -> str:
        with pytest.raises(RuntimeFailureError) as caught, link:
            pass
        assert caught.value.exit_code == 3
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def _config(self, server: SshServer, tmp_path: Path, **changes: Path) -> Path:
        text = server.config.read_text()
        for name, path in changes.items():
            text = f"{name} {path}\n{text}"
        (tmp_path / "config").write_text(text)
        return tmp_path / "config"

    def test_a_wrong_host_key(self, server: SshServer, tmp_path: Path) -> None:
        other = Path(f"{make_key(tmp_path / 'other')}.pub").read_text().split()
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
        config = self._config(server, tmp_path, UserKnownHostsFile=known)
        reason = self._reason(SshLink(server.host, config=config))
        assert "its host key has changed" in reason
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in reason

    def test_a_host_key_that_is_not_known_even_if_the_configuration_does_not_mind(
        self, server: SshServer, tmp_path: Path
    ) -> None:
        config = self._config(server, tmp_path, UserKnownHostsFile=tmp_path / "absent")
        config.write_text(f"StrictHostKeyChecking no\n{config.read_text()}")
        reason = self._reason(SshLink(server.host, config=config))
        assert f"its host key is not known; run: ssh -p {server.port}" in reason

    def test_a_key_that_is_refused(self, server: SshServer, tmp_path: Path) -> None:
        config = tmp_path / "config"
        text = server.config.read_text().splitlines()
        config.write_text("\n".join([f"IdentityFile {make_key(tmp_path / 'mine')}", *text[1:]]))
        assert "it refuses the login; bring your key there with: ssh-copy-id" in self._reason(
            SshLink(server.host, config=config)
        )

    def test_nothing_listens(self, server: SshServer) -> None:
        link = SshLink("127.0.0.1:1", config=server.config)
        assert "127.0.0.1, port 1 cannot be used: nothing listens there" in self._reason(link)

    def test_no_such_host(self, server: SshServer) -> None:
        link = SshLink("pi@no-such-host.invalid", config=server.config)
        assert "there is no host of the name no-such-host.invalid" in self._reason(link)

    def test_no_ssh_on_this_machine(
        self, server: SshServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "ssh does not start: No such file or directory" in self._reason(server.link())

    def test_no_address(self) -> None:
        with pytest.raises(EdgeheadsError, match="say where, --host USER@HOST"):
            SshLink.from_profile(DeviceProfile(name="pi", link="ssh"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestFullDisk:
    def test_a_file_that_does_not_fit(self, small_disk: Path, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(1 << 20))
        (tmp_path / "ssh").mkdir()
        with serve(tmp_path / "ssh", TMPDIR=str(small_disk)) as full:
            with full.link() as link:
                with pytest.raises(RuntimeFailureError) as caught:
                    link.push(tmp_path / "big", "big.bin")
                assert link.run(["ls", "-A"], 30).stdout == ""
            assert "No space left on device; free some space there, or set TMPDIR" in str(
                caught.value
            )
            assert list(small_disk.iterdir()) == []

    def test_no_room_for_a_work_folder(self, small_disk: Path, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No space left"), (small_disk / "x").open("wb") as file:
            file.write(bytes(1 << 20))
        (tmp_path / "ssh").mkdir()
        with serve(tmp_path / "ssh", TMPDIR=str(small_disk)) as full:
            with pytest.raises(RuntimeFailureError, match="No space left on device; free"):
                full.link().__enter__()
            assert [path.name for path in small_disk.iterdir()] == ["x"]


class TestSession:
    """The measuring program at the other end."""

    def _session(self, server: SshServer, python: str) -> DeviceSession:
        profile = DeviceProfile(name="pi", link="ssh", host=server.host, python=python)
        link = SshLink.from_profile(profile)
        link._config = server.config
        return DeviceSession(profile, link)

    def test_a_model_runs_as_it_does_here(self, server: SshServer, tiny_models: TinyModels) -> None:
        with self._session(server, sys.executable) as there, DeviceSession() as here:
            assert there.inspect(tiny_models.int8)["ops"] == here.inspect(tiny_models.int8)["ops"]
            assert there.describe()["cpu_model"] == here.describe()["cpu_model"]

    def test_no_python(self, server: SshServer) -> None:
        with (
            self._session(server, "no-such-python") as session,
            pytest.raises(RuntimeFailureError) as caught,
        ):
            session.describe()
        assert str(caught.value) == (
            f"{session.where()} has no no-such-python; install Python 3.8 or newer there, or name "
            "it with --python"
        )

    def test_no_interpreter(self, server: SshServer, tmp_path: Path) -> None:
        bare = tmp_path / "bare-python"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
        bare.chmod(0o755)
        with (
            self._session(server, str(bare)) as session,
            pytest.raises(RuntimeFailureError) as caught,
        ):
            session.describe()
        assert str(caught.value) == (
            f"{bare} on {session.where()} has no TFLite interpreter; run: edgeheads devices setup "
            f"pi --host {server.host}, or name another Python with --python"
        )
