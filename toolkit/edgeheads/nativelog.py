"""Keeping the log lines of native libraries off the terminal."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["captured_native_log"]


@contextmanager
def captured_native_log() -> Iterator[Callable[[], str]]:
    """Send file descriptor 2 to a temporary file while the block runs.

    Yields:
        A function that returns what was written so far.
    """
    with tempfile.TemporaryFile() as log:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(log.fileno(), 2)

        def read() -> str:
            log.seek(0)
            return log.read().decode(errors="replace")

        try:
            yield read
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
