"""Device profiles."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from edgeheads.device import DeviceProfile, list_devices, load_device
from edgeheads.errors import EdgeheadsError
from edgeheads.resources import resource_dir
from edgeheads.targets.rules import load_rules


@pytest.mark.parametrize("name", list_devices())
def test_shipped_profile_loads_under_its_own_name(name: str) -> None:
    assert load_device(name).name == name


@pytest.mark.parametrize("name", [name for name in list_devices() if name != "host"])
def test_shipped_profile_names_its_sources(name: str) -> None:
    profile = load_device(name)
    assert profile.sources
    assert not any("://" in source for source in profile.sources)
    if profile.op_rules:
        assert load_rules(profile.op_rules).source


def test_every_key_is_in_the_readme() -> None:
    text = (resource_dir("devices") / "README.md").read_text(encoding="utf-8")
    for field in fields(DeviceProfile):
        section = getattr(DeviceProfile(), field.name)
        inner = [f".{one.name}" for one in fields(section)] if is_dataclass(section) else [""]
        for name in inner:
            assert f"| `{field.name}{name}` |" in text
    for name in list_devices():
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("profile", "is_reachable"),
    [
        (DeviceProfile(), True),
        (DeviceProfile(link="ssh"), False),
        (DeviceProfile(link="ssh", host="pi@kitchen"), True),
        (DeviceProfile(link="adb"), True),
        (DeviceProfile(link="adb", benchmark_model="/x"), False),
        (DeviceProfile(op_rules="edgetpu"), False),
        (DeviceProfile(link="ssh", host="pi@kitchen", op_rules="edgetpu"), True),
        (DeviceProfile(link="none"), False),
    ],
)
def test_whether_a_bundle_can_be_checked_there(profile: DeviceProfile, is_reachable: bool) -> None:
    assert profile.is_reachable == is_reachable


def test_host_file_says_what_the_defaults_say() -> None:
    """Without --device no file is read, so the two must not drift apart."""
    assert load_device("host") == DeviceProfile()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thread: 2\n", "PATH: unknown key 'thread'; did you mean threads?"),
        ("threads: '2'\n", "PATH: threads must be int, received '2' (str)"),
        ("threads: yes\n", "PATH: threads must be int, received True (bool)"),
        ("threads: 0\n", "PATH: threads must be between 1 and 256, received 0"),
        ("delegate: npu\n", "PATH: unknown delegate 'npu'; did you mean gpu?"),
        ("memory: 512\n", "PATH: memory must be a mapping, received 512 (int)"),
        (
            "memory: {ram: 512}\n",
            "PATH: unknown key 'memory.ram'; did you mean memory.ram_mb or memory.accelerator_kb?",
        ),
        ("memory: {ram_mb: 1e3}\n", "PATH: memory.ram_mb must be int, received '1e3' (str)"),
        (
            "cool_down: {seconds: 4000}\n",
            "PATH: cool_down.seconds must be between 0 and 3600, received 4000",
        ),
        (
            "quantization: {weights: per-row}\n",
            "PATH: unknown quantization.weights 'per-row'; did you mean per-tensor?",
        ),
        (
            "quantization: {precisions: []}\n",
            "PATH: quantization.precisions must name one of "
            "['float32', 'float16', 'dynamic', 'int8', 'int16x8']",
        ),
        (
            "quantization: {io_types: int8}\n",
            "PATH: quantization.io_types must be a list of texts, received 'int8' (str)",
        ),
        ("sources: [1]\n", "PATH: sources must be a list of texts, received [1] (list)"),
        ("- a\n", "device profile PATH must be a mapping of keys to values, received list"),
    ],
)
def test_error_names_file_key_and_value(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EdgeheadsError) as caught:
        load_device(path)
    assert str(caught.value).replace(str(path), "PATH") == expected


def test_unknown_device_lists_close_matches() -> None:
    with pytest.raises(EdgeheadsError, match=r"unknown device 'hots'; did you mean host\?"):
        load_device("hots")
