"""Scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from edgeheads.errors import MissingDependencyError

__all__ = ["TensorBoard"]


class TensorBoard:
    """Writes the rows of training.csv as scalars, each row once.

    Args:
        folder: for the event file.

    Raises:
        MissingDependencyError: tensorboard, or TensorFlow, which writes the file, is missing.
    """

    def __init__(self, folder: Path) -> None:
        for package, extra in (("tensorboard", "tensorboard"), ("tensorflow", "convert")):
            if find_spec(package) is None:
                raise MissingDependencyError(package, extra, "writing logs for TensorBoard")
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(str(folder))
        self._scalar = tf.summary.scalar
        self._last = 0

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Add the rows after the last one that was written."""
        with self._writer.as_default():
            for row in rows:
                if row["step"] > self._last:
                    for name, value in row.items():
                        if name != "step":
                            self._scalar(name, value, step=int(row["step"]))
                    self._last = int(row["step"])
        self._writer.flush()
