"""Device profiles: what a target is, as data. devices/*.yaml holds one profile per file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeheads.errors import EdgeheadsError, MissingDependencyError, unknown_name
from edgeheads.resources import resource_dir

__all__ = ["DeviceProfile", "list_devices", "load_device"]

_CHOICES = {
    "link": ("local",),
    "runtime": ("any", "ai-edge-litert", "tflite-runtime", "tensorflow"),
    "delegate": ("xnnpack", "none"),
}


@dataclass(frozen=True)
class DeviceProfile:
    """A target and how it is reached. The defaults are the machine edgeheads runs on.

    Attributes:
        name: the file's stem, and what `--device` takes.
        title: for tables and reports.
        link: how files and commands get there; a name from `edgeheads.links.LINKS`.
        runtime: which interpreter to insist on; "any" takes the first that is installed.
        delegate: what should run the graph. A node that stays outside it is reported.
        threads: interpreter threads.
    """

    name: str = "host"
    title: str = "this machine"
    link: str = "local"
    runtime: str = "any"
    delegate: str = "xnnpack"
    threads: int = 1

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            if (received := getattr(self, field)) not in allowed:
                raise unknown_name(field, str(received), allowed)
        if not 1 <= self.threads <= 256:
            raise EdgeheadsError(f"threads must be between 1 and 256, received {self.threads}")


def list_devices() -> list[str]:
    """Return the names of the profiles that ship with edgeheads."""
    return sorted(path.stem for path in resource_dir("devices").glob("*.yaml"))


def load_device(name_or_file: str | Path) -> DeviceProfile:
    """Read a profile by its name, or from a YAML file of the user's.

    Raises:
        EdgeheadsError: no such profile; a key that is unknown, of the wrong type or out of range.
    """
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        path = resource_dir("devices") / f"{name_or_file}.yaml"
        if not path.is_file():
            raise unknown_name("device", str(name_or_file), list_devices())
    if not path.is_file():
        raise EdgeheadsError(f"device profile {path} does not exist; known: {list_devices()}")
    return _parse(path, _read_yaml(path))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("pyyaml", "convert", "reading a device profile") from None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise EdgeheadsError(f"device profile {path} is not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise EdgeheadsError(
            f"device profile {path} must be a mapping of keys to values, "
            f"received {type(content).__name__}"
        )
    return content


def _parse(path: Path, content: dict[str, Any]) -> DeviceProfile:
    types = {
        field.name: {"str": str, "int": int}[str(field.type)] for field in fields(DeviceProfile)
    }
    for key, value in content.items():
        if key not in types:
            raise EdgeheadsError(f"{path}: {unknown_name('key', str(key), types)}")
        if type(value) is not types[key]:
            raise EdgeheadsError(
                f"{path}: {key} must be {types[key].__name__}, "
                f"received {value!r} ({type(value).__name__})"
            )
    try:
        return DeviceProfile(**{"name": path.stem, **content})
    except EdgeheadsError as error:
        raise EdgeheadsError(f"{path}: {error}") from None
