"""Doing the same work on several devices at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Generic, TypeVar

from edgeheads.device import DeviceProfile
from edgeheads.errors import EdgeheadsError, RuntimeFailureError
from edgeheads.measurements import device_label

__all__ = ["FleetResult", "on_every_device"]

T = TypeVar("T")


@dataclass(frozen=True)
class FleetResult(Generic[T]):
    """What came of the work.

    Attributes:
        done: {device label: result}, in the order of the devices.
        failed: {device label: error} of the others.
    """

    done: dict[str, T] = field(default_factory=dict)
    failed: dict[str, EdgeheadsError] = field(default_factory=dict)

    def require_all(self) -> None:
        """Raise if a device failed: the error itself where there was only one device.

        Raises:
            RuntimeFailureError: some of several failed; it names each with its reason.
        """
        if not self.failed:
            return
        if len(self.failed) == 1 and not self.done:
            raise next(iter(self.failed.values()))
        reasons = "; ".join(f"{label}: {error}" for label, error in self.failed.items())
        raise RuntimeFailureError(
            f"{len(self.failed)} of {len(self.failed) + len(self.done)} devices failed: {reasons}"
        )


def on_every_device(
    profiles: Sequence[DeviceProfile], work: Callable[[DeviceProfile, Event], T]
) -> FleetResult[T]:
    """Do some work for every device, all at the same time.

    A device that fails leaves the others alone.

    Args:
        profiles: of the devices. Two of one name and address would disturb each other.
        work: is called with a profile, and an event for `DeviceSession`: it is set by Ctrl-C,
            which waits for the questions that were asked already.

    Raises:
        EdgeheadsError: a device is named twice.
    """
    labels = [device_label(profile) for profile in profiles]
    if twins := sorted({label for label in labels if labels.count(label) > 1}):
        raise EdgeheadsError(
            f"device {twins[0]} is named {labels.count(twins[0])} times; name each once, and give "
            "several of one kind their own --host or --serial"
        )
    result: FleetResult[T] = FleetResult()
    cancelled = Event()
    # In this thread, so that Ctrl-C reaches the work itself.
    if len(profiles) == 1:
        _note(result, labels[0], lambda: work(profiles[0], cancelled))
        return result
    with ThreadPoolExecutor(len(profiles), thread_name_prefix="device") as pool:
        futures = [pool.submit(work, profile, cancelled) for profile in profiles]
        try:
            wait(futures)
        except BaseException:
            cancelled.set()
            raise
    for label, future in zip(labels, futures, strict=True):
        _note(result, label, future.result)
    return result


def _note(result: FleetResult[T], label: str, work: Callable[[], T]) -> None:
    try:
        result.done[label] = work()
    except EdgeheadsError as error:
        result.failed[label] = error
