"""Device profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeheads.device import DeviceProfile, list_devices, load_device
from edgeheads.errors import EdgeheadsError


@pytest.mark.parametrize("name", list_devices())
def test_shipped_profile_loads_under_its_own_name(name: str) -> None:
    assert load_device(name).name == name


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
        ("delegate: gpu\n", "PATH: unknown delegate 'gpu'; known: none, xnnpack"),
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
