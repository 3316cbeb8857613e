"""Running a .tflite file on a device: what is in it, how fast it is, and what it computes.

Nothing here needs TensorFlow. The work is done by `edgeheads.ondevice.measure`, which is packed
into one file, copied to the device and started there once per question.
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, MissingDependencyError, RuntimeFailureError
from edgeheads.links import open_link
from edgeheads.links.base import Link, RunResult
from edgeheads.ondevice.archive import ARCHIVE_NAME, measuring_program
from edgeheads.ondevice.failure import FAILURE_EXIT_CODE
from edgeheads.ondevice.files import read_arrays, write_arrays

__all__ = ["BenchSettings", "DeviceSession"]

_Arrays = dict[str, NDArray[Any]]

# An error that another file or another input would cure, by the kind the program gives it; every
# other kind is a failure of the device.
_USER_ERRORS = {"bad-model", "bad-input", "bad-request", "unsupported-op"}

# A graph of hundreds of operations on a slow processor: each cut is a file to load and to run.
_PROFILE_SECONDS = 3600.0

_CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE}


@dataclass(frozen=True)
class BenchSettings:
    """How a latency is measured.

    Attributes:
        threads: interpreter threads; None takes the device profile's.
        warmup_runs: runs that are not counted, at least this many.
        min_warmup_seconds: and for at least this long.
        runs: counted runs, at least this many.
        min_seconds: and for at least this long.
        max_seconds: warm-up and measurement each end early after this long.
        sample_seconds: between two readings of clock and heat; 0 reads none.
        seed: of the random inputs.
        input_low: lower end of float inputs.
        input_high: upper end of float inputs.
    """

    threads: int | None = None
    warmup_runs: int = 10
    min_warmup_seconds: float = 0.5
    runs: int = 128
    min_seconds: float = 0.0
    max_seconds: float = 10.0
    sample_seconds: float = 1.0
    seed: int = 0
    input_low: float = 0.0
    input_high: float = 1.0

    def __post_init__(self) -> None:
        if self.threads is not None:
            _require_at_least("threads", self.threads, 1)
        _require_at_least("warmup_runs", self.warmup_runs, 0)
        _require_at_least("min_warmup_seconds", self.min_warmup_seconds, 0)
        _require_at_least("runs", self.runs, 1)
        _require_at_least("min_seconds", self.min_seconds, 0)
        _require_at_least("max_seconds", self.max_seconds, 0)
        _require_at_least("sample_seconds", self.sample_seconds, 0)
        if self.min_seconds > self.max_seconds:
            raise EdgeheadsError(
                f"max_seconds must be at least min_seconds, {self.min_seconds:g}, received "
                f"{self.max_seconds:g}"
            )
        _require_at_least("seed", self.seed, 0)
        if not -math.inf < self.input_low < self.input_high < math.inf:
            raise EdgeheadsError(
                "input_low must be below input_high and both finite, received "
                f"{self.input_low} and {self.input_high}"
            )

    @property
    def longest_seconds(self) -> float:
        """How long warm-up and measurement take at most, but for the run that is under way."""
        return self.min_warmup_seconds + 2 * self.max_seconds


class DeviceSession:
    """A device that is ready to be asked about models.

        with DeviceSession(load_device("host")) as session:
            print(session.bench(Path("model.tflite"))["latency_ms"]["p50"])

    Every answer names the interpreter ("runtime": name and version). The program and each model
    are copied to the device once, known by their content.

    Args:
        profile: the target; this machine by default.
        link: how to reach it, instead of the profile's own link. The session enters and leaves it.
        timeout_seconds: how long one question may take; `bench` adds what its settings ask for.
        cancelled: once set, no more questions are asked: RuntimeFailureError. Ctrl-C reaches the
            main thread only; this is for sessions in others.
    """

    def __init__(
        self,
        profile: DeviceProfile | None = None,
        link: Link | None = None,
        timeout_seconds: float = 600.0,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.profile = profile or DeviceProfile()
        self._link = link or open_link(self.profile)
        self._timeout_seconds = timeout_seconds
        self._cancelled = cancelled
        self._pushed: set[str] = set()

    def __enter__(self) -> DeviceSession:
        self._link.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pushed.clear()
        self._link.__exit__(kind, error, traceback)

    def describe(self) -> dict[str, Any]:
        """Return what the device is: platform, processor, cores, memory, interpreter."""
        return self._ask("describe", {})

    def inspect(self, model: Path) -> dict[str, Any]:
        """Return a file's inputs, outputs and operations, and which of them the delegate took."""
        return self._ask_about(model, "inspect", {"threads": self.profile.threads})

    def bench(
        self,
        model: Path,
        settings: BenchSettings | None = None,
        image: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return latency (ms), start-up time (ms) and memory (bytes) on random inputs.

        Args:
            model: a .tflite file.
            settings: how it is measured.
            image: the contract's image input as JSON; its preprocessing is then timed, too.
        """
        settings = settings or BenchSettings()
        threads = settings.threads or self.profile.threads
        keys = {**asdict(settings), "threads": threads, "image": dict(image or {})}
        return self._ask_about(model, "bench", keys, extra_seconds=settings.longest_seconds)

    def profile_ops(
        self, model: Path, threads: int | None = None, runs: int = 30, rounds: int = 3
    ) -> dict[str, Any]:
        """Return what every operation costs; see `edgeheads.ondevice.profiling`."""
        keys = {"threads": threads or self.profile.threads, "runs": runs, "rounds": rounds}
        return self._ask_about(model, "profile", keys, extra_seconds=_PROFILE_SECONDS)

    def run_with_model(
        self, model: Path, arguments: Sequence[str], timeout_seconds: float
    ) -> RunResult:
        """Run the device's Python with arguments, of which MODEL stands for the file's name there.

        For programs that are installed there, such as an interpreter's own tools.
        """
        name = self._put(model)
        argv = [self._link.python, *(name if one == "MODEL" else one for one in arguments)]
        return self._link.run(argv, timeout_seconds)

    def read_file(self, name: str) -> bytes:
        """Return a file that a program left in the work folder."""
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            local = Path(folder, "file")
            self._link.pull(name, local)
            return local.read_bytes()

    def where(self) -> str:
        """Return where the session's link leads, for messages."""
        return self._link.describe()

    def predict(self, model: Path, inputs: Mapping[str, NDArray[Any]]) -> _Arrays:
        """Run the model on every sample.

        Args:
            model: a .tflite file of batch size 1.
            inputs: input name to [N, ...] of the model's own dtype; N samples.

        Returns:
            Output name to [N, ...] of the model's own dtype.
        """
        return self.predict_with_report(model, inputs)[0]

    def predict_with_report(
        self, model: Path, inputs: Mapping[str, NDArray[Any]]
    ) -> tuple[_Arrays, dict[str, Any]]:
        """Return what `predict` returns, and how it went: "seconds", "invoke_ms" per sample."""
        for name, array in inputs.items():
            if np.asanyarray(array).dtype.hasobject:
                raise EdgeheadsError(
                    f"input {name!r} holds Python objects; expected an array of numbers"
                )
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            local = Path(folder, "arrays.npz")
            write_arrays(local, inputs)
            # The same two names every time: the next chunk takes the place of the last one.
            self._link.push(local, "inputs.npz")
            keys = {"inputs": "inputs.npz", "outputs": "outputs.npz"}
            report = self._ask_about(model, "predict", {**keys, "threads": self.profile.threads})
            self._link.pull("outputs.npz", local)
            return read_arrays(local), report

    def predict_batches(
        self, model: Path, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> Iterator[_Arrays]:
        """Run the model on one batch after the other; at most one is on the disks at any time."""
        for batch in batches:
            yield self.predict(model, batch)

    def _ask_about(
        self, model: Path, action: str, keys: Mapping[str, Any], extra_seconds: float = 0.0
    ) -> dict[str, Any]:
        """Ask about a model, which is pushed first if the device does not have it."""
        name = self._put(model)
        digest = name.partition(".")[0]
        request = {"model": name, "delegate": self.profile.delegate, **keys}
        answer = self._ask(action, request, model, extra_seconds)
        if answer["sha256"] != digest:
            raise RuntimeFailureError(
                f"{model} has sha256 {digest}, its copy on {self._link.describe()} "
                f"{answer['sha256']}; the copy is damaged"
            )
        return answer

    def _put(self, model: Path) -> str:
        """Copy a model to the device unless it is there, and return its name there."""
        if not model.is_file():
            raise EdgeheadsError(f"model {model} does not exist")
        limit, size = self.profile.memory.ram_mb << 20, model.stat().st_size
        if limit and size > limit:
            raise EdgeheadsError(
                f"{model} has {size >> 20} MB, and {self.profile.name} has {limit >> 20} MB of "
                "memory in all; take a smaller model, or a device with more"
            )
        name = f"{_sha256(model)}.tflite"
        self._push_once(model, name)
        return name

    def _ask(
        self,
        action: str,
        keys: Mapping[str, Any],
        model: Path | None = None,
        extra_seconds: float = 0.0,
    ) -> dict[str, Any]:
        self._require_not_cancelled()
        if ARCHIVE_NAME not in self._pushed:
            with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
                program = Path(folder, ARCHIVE_NAME)
                program.write_bytes(measuring_program())
                self._push_once(program, ARCHIVE_NAME)
        request = {"action": action, "runtime": self.profile.runtime, **keys}
        with tempfile.TemporaryDirectory(prefix="edgeheads-") as folder:
            local = Path(folder, "request.json")
            local.write_text(json.dumps(request), encoding="utf-8")
            self._link.push(local, "request.json")
            argv = [self._link.python, ARCHIVE_NAME, "request.json", "result.json"]
            run = self._link.run(argv, self._timeout_seconds + extra_seconds)
            if run.exit_code not in (0, FAILURE_EXIT_CODE):
                raise self._crash(run, model)
            self._link.pull("result.json", local)
            answer: dict[str, Any] = json.loads(local.read_text(encoding="utf-8"))
        if "error" in answer:
            raise self._refusal(model, **answer["error"])
        return answer

    def _require_not_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled.is_set():
            raise RuntimeFailureError(f"the work on {self._link.describe()} was interrupted")

    def _push_once(self, local: Path, name: str) -> None:
        if name not in self._pushed:
            self._link.push(local, name)
            self._pushed.add(name)

    def _refusal(self, model: Path | None, kind: str, message: str) -> EdgeheadsError:
        """Return the error that stands for the program's own."""
        if kind == "no-interpreter":
            return self._missing_interpreter()
        if kind in _USER_ERRORS:
            return EdgeheadsError(f"{model}: {message}" if model else message)
        return RuntimeFailureError(
            f"{model} on {self._link.describe()}: {message}"
            if model
            else f"{self._link.describe()}: {message}"
        )

    def _missing_interpreter(self) -> EdgeheadsError:
        wanted = self.profile.runtime
        if self._link.setup_command:
            what = "TFLite interpreter" if wanted == "any" else wanted
            return RuntimeFailureError(
                f"{self._link.python} on {self._link.describe()} has no {what}; "
                f"run: {self._link.setup_command}, or name another Python with --python"
            )
        package = "ai-edge-litert" if wanted == "any" else wanted
        extra = {"tflite-runtime": "runtime-legacy", "tensorflow": "convert"}.get(wanted, "runtime")
        return MissingDependencyError(
            package, extra, f"running a .tflite file on {self._link.describe()}"
        )

    def _crash(self, run: RunResult, model: Path | None) -> EdgeheadsError:
        """Return the error for a program that ended without an answer."""
        where = self._link.describe()
        # 128 + n is how a remote shell reports the signal n.
        number = -run.exit_code if run.exit_code < 0 else run.exit_code - 128
        if model and number in _CRASH_SIGNALS:
            return EdgeheadsError(
                f"{model}: the interpreter on {where} crashed ({signal.Signals(number).name}); "
                "the file is damaged or not a TFLite model: compare its size and sha256 with the "
                "original, then copy or export it again"
            )
        if number == signal.SIGKILL:
            return RuntimeFailureError(
                f"the interpreter on {where} was killed, most likely because memory ran out; "
                "free some, or take a smaller model"
            )
        if "No module named 'numpy'" in run.stderr:
            return self._missing_interpreter()
        last = (run.stderr.strip().splitlines() or ["it left no message"])[-1]
        return RuntimeFailureError(
            f"the measuring program on {where} ended with exit status {run.exit_code}: {last}"
        )


def _require_at_least(name: str, received: float, lowest: float) -> None:
    if not lowest <= received < math.inf:
        raise EdgeheadsError(f"{name} must be at least {lowest}, received {received}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
