"""Device profiles: what a target is, as data. devices/*.yaml holds one profile per file."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from edgeheads.compression.quantize.schemes import SCHEMES
from edgeheads.errors import EdgeheadsError, MissingDependencyError, unknown_name
from edgeheads.resources import resource_dir

__all__ = [
    "CoolDown",
    "DeviceProfile",
    "Memory",
    "Quantization",
    "Vela",
    "list_devices",
    "load_device",
    "read_yaml",
]

_PRECISIONS = tuple(dict.fromkeys(scheme.computes for scheme in SCHEMES.values()))
_CHOICES = {
    "link": ("local", "ssh", "adb", "none"),
    "runtime": ("any", "ai-edge-litert", "tflite-runtime", "tensorflow"),
    "delegate": ("xnnpack", "edgetpu", "gpu", "none"),
}


def _require_choice(key: str, received: str, allowed: tuple[str, ...]) -> None:
    if received not in allowed:
        raise unknown_name(key, received, allowed)


def _require_between(key: str, received: int, low: int, high: int, unit: str = "") -> None:
    if not low <= received <= high:
        raise EdgeheadsError(f"{key} must be between {low} and {high}{unit}, received {received}")


@dataclass(frozen=True)
class Quantization:
    """What a target wants of a file's numbers.

    Attributes:
        precisions: the Bundle precisions that run there; what a file takes and gives is up to
            `io_types`.
        weights: "per-channel" or "per-tensor" scales; "any" where both run.
        io_types: types of the file's inputs and outputs that the target takes without a
            conversion of its own on the CPU; empty where all do.
    """

    precisions: tuple[str, ...] = _PRECISIONS
    weights: str = "any"
    io_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.precisions:
            raise EdgeheadsError(f"quantization.precisions must name one of {list(_PRECISIONS)}")
        for precision in self.precisions:
            _require_choice("quantization.precisions", precision, _PRECISIONS)
        _require_choice("quantization.weights", self.weights, ("any", "per-channel", "per-tensor"))
        for name in self.io_types:
            _require_choice("quantization.io_types", name, ("float32", "int8", "uint8", "int16"))

    @property
    def per_channel(self) -> bool:
        """Whether each channel of the weights gets a scale of its own."""
        return self.weights != "per-tensor"


@dataclass(frozen=True)
class Memory:
    """How much there is. 0: it differs from one device to the next, or nobody published it.

    Attributes:
        ram_mb: of the smallest variant on sale, in units of 1 048 576 bytes.
        accelerator_kb: on the accelerator's own chip, in units of 1024 bytes.
    """

    ram_mb: int = 0
    accelerator_kb: int = 0

    def __post_init__(self) -> None:
        _require_between("memory.ram_mb", self.ram_mb, 0, 1 << 20)
        _require_between("memory.accelerator_kb", self.accelerator_kb, 0, 1 << 30)


@dataclass(frozen=True)
class CoolDown:
    """How a measurement waits for a device that heats up.

    Attributes:
        seconds: pause between rounds.
        start_below_celsius: wait for this temperature before a round; 0 does not wait.
        max_wait_seconds: measure all the same after this long, and say so.
    """

    seconds: int = 0
    start_below_celsius: int = 0
    max_wait_seconds: int = 120

    def __post_init__(self) -> None:
        _require_between("cool_down.seconds", self.seconds, 0, 3600)
        _require_between("cool_down.start_below_celsius", self.start_below_celsius, 0, 120)
        _require_between("cool_down.max_wait_seconds", self.max_wait_seconds, 0, 3600)


@dataclass(frozen=True)
class Vela:
    """What Arm's Vela compiler is told of an Ethos-U system. Empty: no estimate by Vela.

    Attributes:
        accelerator: the core and its multiply-accumulate units: "ethos-u55-128".
        system_config: clock and memory bandwidths, by a name in Vela's configuration.
        memory_mode: where tensors and weights lie, by a name in Vela's configuration.
    """

    accelerator: str = ""
    system_config: str = ""
    memory_mode: str = ""


@dataclass(frozen=True)
class DeviceProfile:
    """A target and how it is reached. The defaults are the machine edgeheads runs on.

    Attributes:
        name: the file's stem, and what `--device` takes.
        title: for tables and reports.
        link: how files and commands get there; a name from `edgeheads.links.LINKS`, or "none"
            for a target that is only estimated.
        runtime: which interpreter to insist on; "any" takes the first that is installed.
        delegate: what should run the graph. A node that stays outside it is reported.
        threads: interpreter threads.
        host: [user@]host[:port] of a device behind SSH; `--host`.
        serial: of a device behind adb; `--serial`.
        python: starts Python there; empty takes the virtual environment's, or python3.
        venv: where `edgeheads devices setup` puts an interpreter; empty takes the link's place.
        benchmark_model: path on the device of TensorFlow Lite's benchmark tool, for devices
            without Python: latency only.
        op_rules: the target's rules for operations, a file in devices/rules/; empty: none.
        quantization: what the target wants of a file's numbers.
        memory: how much there is.
        cool_down: how a measurement waits.
        vela: the Ethos-U system to estimate.
        sources: the public documents that the facts above are from.
    """

    name: str = "host"
    title: str = "this machine"
    link: str = "local"
    runtime: str = "any"
    delegate: str = "xnnpack"
    threads: int = 1
    host: str = ""
    serial: str = ""
    python: str = ""
    venv: str = ""
    benchmark_model: str = ""
    op_rules: str = ""
    quantization: Quantization = Quantization()
    memory: Memory = Memory()
    cool_down: CoolDown = CoolDown()
    vela: Vela = Vela()
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            _require_choice(field, getattr(self, field), allowed)
        _require_between("threads", self.threads, 1, 256)

    @property
    def is_reachable(self) -> bool:
        """Whether a Bundle can be checked there: it is this machine, or its address is known.

        Without an address, an accelerator may or may not be plugged in. A device that only has
        a benchmark tool computes no outputs.
        """
        if self.link == "none" or self.benchmark_model:
            return False
        return bool(self.host or self.serial) or (self.link != "ssh" and not self.op_rules)


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
    content = read_yaml(path, "device profile")
    try:
        profile: DeviceProfile = _parsed(DeviceProfile, {"name": path.stem, **content}, "")
    except EdgeheadsError as error:
        raise EdgeheadsError(f"{path}: {error}") from None
    return profile


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; `what` names it in errors."""
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("pyyaml", "convert", f"reading a {what}") from None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise EdgeheadsError(f"{what} {path} is not valid YAML: {problem}") from None
    if not isinstance(content, dict):
        raise EdgeheadsError(
            f"{what} {path} must be a mapping of keys to values, received {type(content).__name__}"
        )
    return content


def _parsed(kind: type[Any], content: dict[Any, Any], prefix: str) -> Any:
    """Build a dataclass from a mapping, strictly; `prefix` is the mapping's own key and a dot."""
    types = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    values = {}
    for key, value in content.items():
        if key not in known:
            raise unknown_name("key", f"{prefix}{key}", [f"{prefix}{name}" for name in known])
        values[key] = _value(types[key], value, f"{prefix}{key}")
    return kind(**values)


def _value(kind: Any, value: Any, key: str) -> Any:
    if is_dataclass(kind):
        assert isinstance(kind, type)  # noqa: S101 - a type hint, not an instance
        if not isinstance(value, dict):
            raise _wrong_type(key, "a mapping", value)
        return _parsed(kind, value, f"{key}.")
    if get_args(kind):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise _wrong_type(key, "a list of texts", value)
        return tuple(value)
    if type(value) is not kind:
        raise _wrong_type(key, kind.__name__, value)
    return value


def _wrong_type(key: str, expected: str, received: Any) -> EdgeheadsError:
    return EdgeheadsError(
        f"{key} must be {expected}, received {received!r} ({type(received).__name__})"
    )
