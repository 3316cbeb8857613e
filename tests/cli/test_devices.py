"""`edgeheads devices`, and the options that say where a device is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run

from edgeheads.cli.options import chosen_device, chosen_devices
from edgeheads.device import list_devices
from edgeheads.errors import EdgeheadsError


def test_list_and_show() -> None:
    listed = run("devices", "list")
    assert all(name in listed.stdout for name in list_devices())
    shown = run("devices", "show", "coral-usb", "--json")
    content = json.loads(shown.stdout)
    assert content["quantization"]["precisions"] == ["int8"]
    assert len(content["sources"]) >= 2


def test_show_an_unknown_one() -> None:
    shown = run("devices", "show", "rasberry-pi-5")
    assert shown.returncode == 2
    assert shown.stderr.startswith("edgeheads: unknown device 'rasberry-pi-5'; did you mean rasp")


def test_doctor_of_this_machine() -> None:
    done = run("devices", "doctor", "--json", without={"tensorflow", "keras"})
    content = json.loads(done.stdout)
    assert done.returncode == 0
    assert content["ready"]
    assert "interpreter" in [one["name"] for one in content["findings"]]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (["doctor", "raspberry-pi-5"], 2, "is reached over SSH: say where, --host USER@HOST"),
        (["doctor", "ethos-u55"], 2, "is estimated, never reached; run: edgeheads verify BUNDLE"),
        (["doctor", "--host", "127.0.0.1:1"], 3, "127.0.0.1, port 1 cannot be used: nothing"),
        (["doctor", "--host", "-oX=y"], 2, "a host must be like pi@kitchen.local"),
        (["setup", "host"], 2, "its interpreter is that of the Python which runs edgeheads"),
        (["doctor", "host", "--host", "pi@kitchen"], 2, "is for a device with link ssh"),
        (["doctor", "host", "--python", "x"], 2, "--python x is for a device behind SSH or adb"),
    ],
)
def test_refusals_are_one_line(arguments: list[str], exit_code: int, expected: str) -> None:
    done = run("devices", *arguments)
    assert done.returncode == exit_code
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


class TestChosenDevices:
    def test_nothing_said_is_this_machine(self) -> None:
        assert chosen_device(None, None).link == "local"

    def test_a_host_alone(self) -> None:
        profile = chosen_device(None, 2, host="pi@kitchen")
        assert (profile.link, profile.host, profile.threads) == ("ssh", "pi@kitchen", 2)

    def test_a_serial_alone(self) -> None:
        profile = chosen_device(None, None, serial="emulator-5554")
        assert (profile.link, profile.serial) == ("adb", "emulator-5554")

    def test_addresses_go_to_devices_in_order(self) -> None:
        names = ["raspberry-pi-4", "host", "android", "raspberry-pi-5"]
        chosen = chosen_devices(names, None, ["pi@four", "pi@five"], ["X"])
        assert [(one.name, one.host, one.serial) for one in chosen] == [
            ("raspberry-pi-4", "pi@four", ""),
            ("host", "", ""),
            ("android", "", "X"),
            ("raspberry-pi-5", "pi@five", ""),
        ]

    def test_an_accelerator_at_another_machine(self) -> None:
        profile = chosen_device("coral-usb", None, host="pi@kitchen")
        assert (profile.link, profile.delegate) == ("ssh", "edgetpu")

    def test_a_profile_of_ones_own_with_its_address(self, tmp_path: Path) -> None:
        mine = tmp_path / "kitchen.yaml"
        mine.write_text("link: ssh\nhost: pi@kitchen\n", encoding="utf-8")
        assert chosen_device(str(mine), None).host == "pi@kitchen"
        assert chosen_device(str(mine), None, host="pi@attic").host == "pi@attic"

    def test_too_few_addresses(self) -> None:
        with pytest.raises(EdgeheadsError) as caught:
            chosen_devices(["raspberry-pi-4", "raspberry-pi-5"], None, ["pi@four"])
        assert str(caught.value) == (
            "--host must be given once for each of raspberry-pi-4, raspberry-pi-5, received 1: "
            "pi@four"
        )
