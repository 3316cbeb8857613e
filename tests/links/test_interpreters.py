"""Devices that have an interpreter and NumPy, and neither edgeheads nor TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_server import SshServer, serve

from conftest import TinyModels
from edgeheads.device import DeviceProfile
from edgeheads.errors import RuntimeFailureError
from edgeheads.links import setup
from edgeheads.links.ssh import SshLink
from edgeheads.runtime import BenchSettings, DeviceSession


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serve(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def configured(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    """The server, with its client configuration for every link that a profile opens."""
    plain = SshLink.__init__

    def with_config(link: SshLink, host: str, python: str = "", venv: str = "") -> None:
        plain(link, host, python, venv, server.config)

    monkeypatch.setattr(SshLink, "__init__", with_config)
    return server


def _profile(server: SshServer, runtime: str, **changes: str) -> DeviceProfile:
    return DeviceProfile(
        name="pi", title="Pi", link="ssh", host=server.host, runtime=runtime, **changes
    )


def _set_up(profile: DeviceProfile) -> dict[str, str]:
    try:
        return setup.set_up(profile)
    except RuntimeFailureError as error:
        if "No matching distribution" in str(error) or "venv there" in str(error):
            pytest.skip(f"pip cannot install here: {error}")
        raise


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["tflite-runtime", "ai-edge-litert"])
def test_a_device_is_set_up_once_and_measured(
    configured: SshServer, tiny_models: TinyModels, runtime: str
) -> None:
    if runtime == "tflite-runtime" and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has no wheels for Python 3.12 and newer")
    venv = f"~/{runtime}"
    profile = _profile(configured, runtime, venv=venv, python=sys.executable)
    made = _set_up(profile)
    assert made == {"venv": f"{configured.environment['HOME']}/{runtime}", "state": "made"}
    assert _set_up(profile)["state"] == "was there"

    device = _profile(configured, runtime, venv=venv)
    rng = np.random.default_rng(0)
    inputs = {"image": rng.integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)}
    with DeviceSession(device) as session, DeviceSession() as here:
        there = session.predict(tiny_models.int8, inputs)
        local = here.predict(tiny_models.int8, inputs)
        facts = session.bench(tiny_models.int8, BenchSettings(runs=5, max_seconds=2))
        described = session.describe()
    assert facts["runtime"]["name"] == runtime
    assert facts["runs"] == 5
    assert described["numpy"].startswith("1.") == (runtime == "tflite-runtime")
    for name, values in local.items():
        # Other kernels may round to the next step.
        assert np.abs(there[name].astype(int) - values.astype(int)).max() <= 1

    findings, _ = setup.diagnose(device)
    assert all(one.is_fine for one in findings if one.name != "cores")
    assert f"{made['venv']}/bin/python (the set-up environment)" in " ".join(
        one.detail for one in findings
    )
    listed = subprocess.run(
        [f"{made['venv']}/bin/python", "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert {runtime, "numpy"} <= names
    assert not {"edgeheads", "tensorflow", "keras"} & names


def test_doctor_names_what_is_missing(configured: SshServer, tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    bare.chmod(0o755)
    findings, facts = setup.diagnose(_profile(configured, "any", python=str(bare)))
    by_name = {one.name: one for one in findings}
    assert by_name["python"].is_fine
    assert not by_name["interpreter"].is_fine
    assert "edgeheads devices setup pi --host" in by_name["interpreter"].advice
    assert int(facts["shell"]["free_kb"][0]) > 0


def test_doctor_without_python(configured: SshServer) -> None:
    findings, _ = setup.diagnose(_profile(configured, "any", python="no-such-python"))
    assert findings[-1].name == "python"
    assert not findings[-1].is_fine
    assert findings[-1].advice.startswith("install Python 3.8 or newer there")


def test_a_failed_setup_removes_what_it_began(configured: SshServer, tmp_path: Path) -> None:
    """A venv without an interpreter would be taken for one that is set up."""
    fake = tmp_path / "python"
    # `python -m venv FOLDER` makes a Python whose pip fails.
    fake.write_text(
        '#!/bin/sh\n[ "$2" = venv ] || exit 1\nmkdir -p "$3/bin"\n'
        'printf "#!/bin/sh\\necho ERROR: no network >&2; exit 1\\n" >"$3/bin/python"\n'
        'chmod +x "$3/bin/python"\n'
    )
    fake.chmod(0o755)
    profile = _profile(configured, "any", python=str(fake), venv="~/broken")
    with pytest.raises(RuntimeFailureError, match="pip cannot install ai-edge-litert and numpy"):
        setup.set_up(profile)
    assert not Path(configured.environment["HOME"], "broken").exists()


def test_the_raspberry_pis_word_on_power() -> None:
    finding = setup._throttled("throttled=0x50005")
    assert not finding.is_fine
    assert finding.detail == (
        "now: under-voltage, throttled; since it started: under-voltage, throttled"
    )
    assert setup._throttled("throttled=0x0").detail == "now: no; since it started: no"
