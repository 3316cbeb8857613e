"""Every link keeps the same promises; each has a few of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stand_ins
from ssh_server import SshServer, serve

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links import LINKS, open_link
from edgeheads.links.base import Link, RunResult
from edgeheads.links.fake import FakeLink
from edgeheads.links.local import LocalLink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serve(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture(params=[*LINKS, "fake"])
def link(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Link:
    if request.param == "fake":
        return FakeLink()
    if request.param == "ssh":
        return request.getfixturevalue("server").link()
    if request.param == "adb":
        programs = stand_ins.install(tmp_path / "bin", stand_ins.DEVICE)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return open_link(DeviceProfile(link=request.param))


class TestEveryLink:
    def test_a_file_comes_back_as_it_went(self, link: Link, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(bytes(range(256)))
        with link:
            link.push(tmp_path / "there", "file.bin")
            link.pull("file.bin", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == bytes(range(256))

    def test_a_second_push_replaces_the_first(self, link: Link, tmp_path: Path) -> None:
        with link:
            for text in ("longer", "short"):
                (tmp_path / "file").write_text(text)
                link.push(tmp_path / "file", "file")
            link.pull("file", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "short"

    @pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "a\\b", "C:x", "a\0"])
    def test_names_cannot_leave_the_work_folder(
        self, link: Link, tmp_path: Path, name: str
    ) -> None:
        with link:
            with pytest.raises(EdgeheadsError, match="plain name"):
                link.push(tmp_path, name)
            with pytest.raises(EdgeheadsError, match="plain name"):
                link.pull(name, tmp_path / "back")

    def test_pulling_what_is_not_there(self, link: Link, tmp_path: Path) -> None:
        with link, pytest.raises(RuntimeFailureError, match="has no file 'absent'"):
            link.pull("absent", tmp_path / "back")

    def test_a_closed_link_refuses(self, link: Link, tmp_path: Path) -> None:
        with link:
            pass
        with pytest.raises(RuntimeFailureError, match="not open"):
            link.pull("file", tmp_path / "back")

    def test_nothing_stays_from_one_opening_to_the_next(self, link: Link, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with link:
            link.push(tmp_path / "file", "file")
        with link, pytest.raises(RuntimeFailureError, match="has no file"):
            link.pull("file", tmp_path / "back")

    def test_describe(self, link: Link) -> None:
        assert link.describe()


def _python(code: str) -> list[str]:
    return [LocalLink.python, "-c", code]


class TestLocalLink:
    def test_output_and_exit_code(self) -> None:
        with LocalLink() as link:
            code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
            assert link.run(_python(code), 60) == RunResult(7, "out\n", "err\n")

    def test_commands_run_in_the_work_folder(self, tmp_path: Path) -> None:
        with LocalLink() as link:
            link.run(_python("open('made', 'w').write('x')"), 60)
            link.pull("made", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "x"

    def test_no_shell_sees_the_arguments(self) -> None:
        argument = "$HOME; `echo x` * \"'"
        with LocalLink() as link:
            result = link.run([*_python("import sys; print(sys.argv[1])"), argument], 60)
        assert result.stdout == argument + "\n"

    def test_an_unknown_command(self) -> None:
        with LocalLink() as link, pytest.raises(RuntimeFailureError, match="does not start"):
            link.run(["surely-no-such-command"], 60)

    def test_a_signal_shows_in_the_exit_code(self) -> None:
        with LocalLink() as link:
            assert link.run(_python("import os; os.kill(os.getpid(), 11)"), 60).exit_code == -11

    @pytest.mark.parametrize("failure", [None, ValueError, KeyboardInterrupt])
    def test_nothing_is_left_behind(
        self, tmp_path: Path, failure: type[BaseException] | None
    ) -> None:
        (tmp_path / "file").touch()
        folder = None
        try:
            with LocalLink() as link:
                folder = link.folder
                link.push(tmp_path / "file", "file")
                assert list(folder.iterdir())
                if failure:
                    raise failure
        except (ValueError, KeyboardInterrupt):
            pass
        assert folder is not None
        assert not folder.exists()

    def test_a_timeout_kills_the_command_and_its_children(self) -> None:
        child = "import time; time.sleep(1); open('late', 'w')"
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        with LocalLink() as link:
            with pytest.raises(RuntimeFailureError, match=r"stopped after 0\.5 s"):
                link.run(_python(code), 0.5)
            time.sleep(1.5)
            assert not (link.folder / "late").exists()

    def test_ctrl_c_kills_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[subprocess.Popen[str]] = []
        waits = iter([KeyboardInterrupt])
        communicate = subprocess.Popen.communicate

        def interrupted(process: subprocess.Popen[str], timeout: float | None = None) -> object:
            started.append(process)
            for error in waits:
                raise error
            return communicate(process)

        monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
        with LocalLink() as link, pytest.raises(KeyboardInterrupt):
            link.run(_python("import time; time.sleep(60)"), 60)
        assert started[0].returncode == -9


class TestFakeLink:
    def test_it_records_and_answers(self, tmp_path: Path) -> None:
        def respond(argv: list[str], files: dict[str, bytes]) -> RunResult:
            files["answer"] = files["question"].upper()
            return RunResult(0, " ".join(argv), "")

        (tmp_path / "local").write_bytes(b"why")
        with FakeLink(respond) as link:
            link.push(tmp_path / "local", "question")
            assert link.run(["ask", "it"], 1).stdout == "ask it"
            link.pull("answer", tmp_path / "local")
        assert (tmp_path / "local").read_bytes() == b"WHY"
        assert link.calls == [("push", "question"), ("run", ["ask", "it"]), ("pull", "answer")]


def test_links_are_imported_when_asked_for() -> None:
    code = "import sys, edgeheads.links; print([m for m in sys.modules if 'edgeheads.links.' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_of_a_profile_is_in_the_table() -> None:
    for name in LINKS:
        assert isinstance(open_link(DeviceProfile(link=name, host="pi@kitchen.local")), Link)


def test_a_target_that_is_only_estimated_has_no_link() -> None:
    with pytest.raises(EdgeheadsError, match="ethos is estimated, never reached; run: edgeheads"):
        open_link(DeviceProfile(name="ethos", link="none"))
