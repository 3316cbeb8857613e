"""Limits on what was measured of a Bundle: which hold, which do not, and what to do next.

It reads stored measurements and measures nothing itself, so it needs NumPy and no interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeheads.bench.latency import UNSTABLE_PERCENT
from edgeheads.bundle import Bundle
from edgeheads.errors import CheckFailedError, EdgeheadsError, unknown_name
from edgeheads.evaluate import bundle_task
from edgeheads.measurements import HOST, read_measurements
from edgeheads.tasks.base import Metric

__all__ = ["Limit", "Verdict", "check_limits", "parse_limits"]

_LATENCIES = {f"{name}_ms": name for name in ("p50", "p90", "p95", "p99", "mean")}
_SIZE = "size_kb"
_DROP = "drop"


@dataclass(frozen=True)
class Limit:
    """What a number must be at most or at least.

    Attributes:
        name: "p90_ms", "size_kb", "drop" or a metric of the task.
        is_maximum: at most; otherwise at least.
        value: the number; it may be reached.
    """

    name: str
    is_maximum: bool
    value: float

    @property
    def option(self) -> str:
        """The limit as it is written on the command line."""
        return f"--{'max' if self.is_maximum else 'min'}-{self.name.replace('_', '-')}"


@dataclass(frozen=True)
class Verdict:
    """What became of a limit on a device.

    Attributes:
        limit: the option.
        device: its label; "" for what no device changes, such as the size.
        name: of what was measured; for --max-drop, the metric that dropped.
        value: that was measured; None where it was not, or is not to be relied on.
        bound: the limit's value.
        passed: whether it holds.
        reason: why there is no value, and what to run next; "" where there is one.
    """

    limit: str
    device: str
    name: str
    value: float | None
    bound: float
    passed: bool
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, one key for each attribute."""
        return asdict(self)


def parse_limits(bundle: Bundle, arguments: Sequence[str]) -> list[Limit]:
    """Return the limits that `--max-NAME N`, `--min-NAME N` or `--max-NAME=N` state.

    A hyphen in NAME stands for an underscore or, with several tasks in one, for the slash.

    Raises:
        EdgeheadsError: no limit, an unknown name, the wrong direction, or no finite number.
    """
    metrics = {_plain(metric.name): metric for metric in bundle_task(bundle).metrics}
    limits = []
    words = list(arguments)
    while words:
        option, equals, text = words.pop(0).partition("=")
        start, _, rest = option.removeprefix("--").partition("-")
        if not option.startswith("--") or start not in ("min", "max") or not rest:
            raise EdgeheadsError(
                f"expected a limit like --max-p90-ms 30 or --min-METRIC 0.8, received {option!r}"
            )
        if not equals:
            text = words.pop(0) if words else ""
        name = _plain(rest)
        metric = metrics.get(name)
        if metric is None and name not in (*_LATENCIES, _SIZE, _DROP):
            raise unknown_name("limit", name, [*metrics, *_LATENCIES, _SIZE, _DROP])
        is_maximum = not (metric and metric.higher_is_better)
        limit = Limit(metric.name if metric else name, is_maximum, _number(option, text))
        if is_maximum != (start == "max"):
            better = "lower" if is_maximum else "higher"
            raise EdgeheadsError(f"{option}: {better} is better; write {limit.option} {text}")
        limits.append(limit)
    if not limits:
        raise EdgeheadsError(
            f"nothing to check; give a limit, such as --max-p90-ms 30; known: "
            f"{', '.join([*metrics, *_LATENCIES, _SIZE, _DROP])}"
        )
    return limits


def check_limits(
    bundle: Bundle,
    limits: Sequence[Limit],
    devices: Sequence[str] = (HOST,),
    *,
    allow_fallback: bool = False,
) -> list[Verdict]:
    """Return a verdict for each limit on each device; the size has one, whatever the devices.

    A measurement that is missing, of another file, unstable, or made while operations fell out of
    the delegate fails its limit.

    Args:
        bundle: opened, and so unchanged since it was made.
        limits: from `parse_limits`.
        devices: labels, as `edgeheads.measurements.device_label` gives them.
        allow_fallback: accept timings of which a delegate did not run every operation.
    """
    metrics = {metric.name: metric for metric in bundle_task(bundle).metrics}
    verdicts = []
    for limit in limits:
        if limit.name == _SIZE:
            verdicts.append(_judge(limit, "", _SIZE, bundle.model_bytes / 1000))
            continue
        for device in devices:
            if limit.name == _DROP:
                judged = [metric for metric in metrics.values() if metric.allowed_drop is not None]
                for metric in judged:
                    verdicts.append(
                        _attempt(limit, device, metric.name, _drop_of(bundle, device, metric))
                    )
            elif limit.name in _LATENCIES:
                read = _latency_of(bundle, device, _LATENCIES[limit.name], allow_fallback)
                verdicts.append(_attempt(limit, device, limit.name, read))
            else:
                read = _metric_of(bundle, device, limit.name)
                verdicts.append(_attempt(limit, device, limit.name, read))
    return verdicts


def _attempt(limit: Limit, device: str, name: str, read: Callable[[], float]) -> Verdict:
    try:
        return _judge(limit, device, name, read())
    except CheckFailedError as error:
        return Verdict(limit.option, device, name, None, limit.value, False, str(error))


def _judge(limit: Limit, device: str, name: str, value: float) -> Verdict:
    holds = value <= limit.value if limit.is_maximum else value >= limit.value
    return Verdict(limit.option, device, name, value, limit.value, holds)


def _latency_of(
    bundle: Bundle, device: str, statistic: str, allow_fallback: bool
) -> Callable[[], float]:
    def read() -> float:
        content = _measured(bundle, "benchmark", device)
        again = f"edgeheads bench {bundle.folder}{_on(device)}"
        if content.get("unstable"):
            raise CheckFailedError(
                f"unstable: rounds differ by {content.get('spread_percent', 0):.0f} %, expected at "
                f"most {UNSTABLE_PERCENT:.0f} %; close other programs and run: {again}"
            )
        for one in content.get("repeats", []):
            outside = (one.get("nodes") or 0) - (one.get("delegated_nodes") or 0)
            if one.get("delegate") not in (None, "none") and outside > 0 and not allow_fallback:
                raise CheckFailedError(
                    f"{outside} of {one['nodes']} operations fell out of delegate "
                    f"{one['delegate']}; see which: edgeheads inspect {bundle.folder}; "
                    "or accept it with --allow-fallback"
                )
        return _finite(content.get("latency_ms"), statistic, again)

    return read


def _metric_of(bundle: Bundle, device: str, name: str) -> Callable[[], float]:
    def read() -> float:
        content = _measured(bundle, "evaluation", device)
        again = f"edgeheads evaluate {bundle.folder}{_on(device)}"
        return _finite(content.get("metrics"), name, again)

    return read


def _drop_of(bundle: Bundle, device: str, metric: Metric) -> Callable[[], float]:
    def read() -> float:
        value = _metric_of(bundle, device, metric.name)()
        reference = bundle.read_measurement("float_evaluation")
        again = "convert the model again: edgeheads convert"
        if reference is None:
            raise CheckFailedError(
                f"{bundle.folder} has no float_evaluation.json of this file to compare with; "
                f"{again}"
            )
        measured = _measured(bundle, "evaluation", device)
        data = measured.get("data_sha256")
        if data is None or reference.get("data_sha256") != data:
            raise CheckFailedError(
                "the float model was scored on other images than this file; evaluate on the "
                f"same: edgeheads evaluate {bundle.folder}{_on(device)}"
            )
        return metric.drop(_finite(reference.get("metrics"), metric.name, again), value)

    return read


def _measured(bundle: Bundle, kind: str, device: str) -> dict[str, Any]:
    found = read_measurements(bundle, kind)
    if device not in found:
        command = "bench" if kind == "benchmark" else "evaluate"
        raise CheckFailedError(
            f"no {kind} on {device} (there is: {', '.join(found) or 'none'}); "
            f"run: edgeheads {command} {bundle.folder}{_on(device)}"
        )
    return found[device]


def _finite(values: Any, name: str, again: str) -> float:
    value = values.get(name) if isinstance(values, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise CheckFailedError(f"{name} was not measured (received {value!r}); run: {again}")
    return float(value)


def _on(device: str) -> str:
    """Return the options that lead to a device."""
    name, _, address = device.partition("@")
    if device == HOST:
        return ""
    return f" --device {name}" + (f" (at {address})" if address else "")


def _plain(name: str) -> str:
    return name.replace("-", "_").replace("/", "_")


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -float("inf") < value < float("inf"):
        raise EdgeheadsError(f"{option} must be followed by a number, received {text!r}")
    return value
