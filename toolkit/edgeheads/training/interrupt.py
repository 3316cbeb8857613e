"""Ctrl-C between two steps, not within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Interrupt", "held_interrupt"]


@dataclass
class Interrupt:
    """Whether the user asked to stop."""

    asked: bool = False


@contextmanager
def held_interrupt(hold: bool = True) -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising KeyboardInterrupt; the second one is raised as usual.

    Args:
        hold: do nothing where it is False, or outside the main thread, which alone gets signals.
    """
    interrupt = Interrupt()
    if not hold or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    usual = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        interrupt.asked = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, usual)
