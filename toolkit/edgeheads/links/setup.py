"""Looking at a device and bringing an interpreter there, over any link to a shell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.links import open_link
from edgeheads.links.base import RunResult
from edgeheads.links.shell import ShellLink
from edgeheads.progress import Progress, SilentProgress
from edgeheads.runtime import DeviceSession

__all__ = ["Finding", "as_json", "diagnose", "set_up"]

# What pip installs for each choice of interpreter. tflite-runtime was built for NumPy 1.
_PACKAGES = {
    "any": ("ai-edge-litert", "numpy"),
    "ai-edge-litert": ("ai-edge-litert", "numpy"),
    "tflite-runtime": ("tflite-runtime", "numpy<2"),
    "tensorflow": ("tensorflow", "numpy"),
}
_PIP_SECONDS = 1800.0
_VENV_SECONDS = 300.0

# Least free space, in units of 1024 bytes: the interpreter and NumPy unpacked.
_NEEDED_KB = 200 * 1024
_THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft limit"}

# Facts of a device, most of them as `DeviceSession.describe` gives them.
Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of it.
        is_fine: whether a measurement can go ahead.
        detail: what was found.
        advice: what to do where it is not fine, or could be better.
    """

    name: str
    is_fine: bool
    detail: str
    advice: str = ""


def diagnose(profile: DeviceProfile) -> tuple[list[Finding], Facts]:
    """Connect, and look at all that a measurement needs; nothing is changed there.

    Returns:
        The findings, and the facts they are made of.

    Raises:
        RuntimeFailureError: the device cannot be reached.
    """
    link = open_link(profile)
    facts: Facts = {}
    findings = []
    with link:
        if isinstance(link, ShellLink):
            shell = link.facts()
            facts["shell"] = shell
            findings += _shell_findings(shell, profile)
            findings.append(_python_finding(link))
    if not all(one.is_fine for one in findings if one.name == "python"):
        return findings, facts
    try:
        with DeviceSession(profile) as session:
            facts.update(session.describe())
    except EdgeheadsError as error:
        text, _, advice = str(error).partition("; ")
        findings.append(Finding("interpreter", False, text, advice))
        return findings, facts
    return [*findings, *_described(facts, profile)], facts


def set_up(profile: DeviceProfile, progress: Progress | None = None) -> dict[str, str]:
    """Make a virtual environment on the device with an interpreter in it, unless it is there.

    Returns:
        "venv", its path there, and "state": "made" or "was there".

    Raises:
        EdgeheadsError: the profile is this machine, or only estimated.
        RuntimeFailureError: the device cannot be reached, has no Python with venv, or pip failed;
            what was begun is removed.
    """
    link = open_link(profile)
    if not isinstance(link, ShellLink):
        raise EdgeheadsError(
            f"{profile.name} is {link.describe()}: its interpreter is that of the Python which "
            'runs edgeheads; run: pip install "edgeheads[runtime]"'
        )
    packages = _PACKAGES[profile.runtime]
    with link, (progress or SilentProgress()).step(f"Setting up {link.describe()}", 3) as step:
        python = profile.python or "python3"
        inner = f"{link.venv}/bin/python"
        step.advance(note="looking")
        if link.has_venv and _has_packages(link, inner, packages):
            return {"venv": link.venv, "state": "was there"}
        existed = link.has_venv
        if not existed:
            step.advance(note="making a virtual environment")
            _require_success(
                link.run([python, "-m", "venv", link.venv], _VENV_SECONDS),
                f"no virtual environment can be made on {link.describe()}",
                "install venv there (Debian: apt-get install python3-venv)",
                cleanup=(link, None),
            )
        step.advance(note=f"pip install {' '.join(packages)}")
        _require_success(
            link.run(
                [inner, "-m", "pip", "install", "--quiet", "--no-input", *packages], _PIP_SECONDS
            ),
            f"pip cannot install {' and '.join(packages)} on {link.describe()}",
            "check its network and its Python's version, or name another runtime in a profile",
            cleanup=(link, None if existed else link.venv),
        )
        return {"venv": link.venv, "state": "made"}


def _require_success(
    result: RunResult, what: str, advice: str, cleanup: tuple[ShellLink, str | None]
) -> None:
    if result.exit_code == 0:
        return
    link, folder = cleanup
    if folder:
        link.run(["rm", "-rf", folder], _VENV_SECONDS)
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    said = errors[-1].strip() if errors else f"exit {result.exit_code}"
    raise RuntimeFailureError(f"{what}: {said}; {advice}")


def _has_packages(link: ShellLink, python: str, packages: tuple[str, ...]) -> bool:
    names = [name.partition("<")[0] for name in packages]
    code = "import sys; from importlib import metadata; [metadata.version(n) for n in sys.argv[1:]]"
    return link.run([python, "-c", code, *names], 60).exit_code == 0


def _python_finding(link: ShellLink) -> Finding:
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        result = link.run([link.python, "-c", code], 60)
    except RuntimeFailureError as error:
        text, _, advice = str(error).partition("; ")
        return Finding("python", False, text, advice)
    version = result.stdout.strip()
    numbers = tuple(int(one) for one in version.split(".") if one.isdecimal())
    if result.exit_code != 0 or numbers < (3, 8):
        found = version or result.stderr.strip()[-200:]
        return Finding("python", False, f"{link.python}: {found}", "install Python 3.8 or newer")
    where = "the set-up environment" if link.has_venv else "the system's"
    return Finding("python", True, f"{version}, {link.python} ({where})")


def _shell_findings(shell: dict[str, list[str]], profile: DeviceProfile) -> list[Finding]:
    findings = [Finding("system", True, (shell.get("system") or ["unknown"])[0])]
    if free := shell.get("free_kb"):
        kb = int(free[0]) if free[0].isdecimal() else 0
        findings.append(
            Finding(
                "free disk",
                kb >= _NEEDED_KB,
                f"{kb / 1024:.0f} MiB where work folders go",
                "" if kb >= _NEEDED_KB else "free some, or set TMPDIR there to a larger disk",
            )
        )
    if total := shell.get("memory_kb"):
        available = (shell.get("memory_available_kb") or total)[0]
        detail = f"{int(total[0]) / 1024:.0f} MiB, {int(available) / 1024:.0f} MiB of it available"
        findings.append(Finding("memory", True, detail))
    if throttled := shell.get("throttled"):
        findings.append(_throttled(throttled[0]))
    if profile.delegate == "edgetpu":
        library = shell.get("edgetpu")
        findings.append(
            Finding(
                "Edge TPU runtime",
                bool(library),
                library[0] if library else "libedgetpu.so.1 was not found",
                "" if library else "install Debian's package libedgetpu1-std from Coral",
            )
        )
    return findings


def _throttled(text: str) -> Finding:
    """Read the Raspberry Pi's own word on power and heat: "throttled=0x50005"."""
    flags = int(text.partition("=")[2] or "0", 16)
    now = [name for bit, name in _THROTTLE_BITS.items() if flags >> bit & 1]
    before = [name for bit, name in _THROTTLE_BITS.items() if flags >> (bit + 16) & 1]
    detail = f"now: {', '.join(now) or 'no'}; since it started: {', '.join(before) or 'no'}"
    advice = "use a stronger power supply, and cool it" if now or before else ""
    return Finding("power and heat", not now, detail, advice)


def _described(facts: Facts, profile: DeviceProfile) -> list[Finding]:
    runtime = facts["runtime"]
    conditions = facts.get("conditions") or {}
    governor = conditions.get("governor")
    celsius = conditions.get("temperature_celsius")
    cores = facts.get("usable_cores") or facts.get("logical_cores")
    steady = governor in (None, "performance")
    return [
        Finding("interpreter", True, f"{runtime['name']} {runtime['version']}"),
        Finding("numpy", True, str(facts.get("numpy"))),
        Finding("processor", True, str(facts.get("board") or facts.get("cpu_model") or "unknown")),
        Finding(
            "cores",
            cores is None or cores >= profile.threads,
            f"{cores}; the profile wants {profile.threads} thread(s)",
            "" if cores is None or cores >= profile.threads else "ask for fewer with --threads",
        ),
        Finding(
            "governor",
            True,
            governor or "not readable",
            "" if steady else "for steadier figures: cpupower frequency-set -g performance",
        ),
        Finding(
            "temperature",
            True,
            "not readable" if celsius is None else f"{celsius:.0f} degrees Celsius",
        ),
    ]


def as_json(findings: list[Finding], facts: Facts, profile: DeviceProfile) -> dict[str, Any]:
    """Return a diagnosis as JSON."""
    return {
        "device": profile.name,
        "ready": all(one.is_fine for one in findings),
        "findings": [asdict(one) for one in findings],
        "facts": facts,
    }
