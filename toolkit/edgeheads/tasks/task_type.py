"""The tasks, and the names people call them by."""

from __future__ import annotations

from enum import Enum

from edgeheads.errors import unknown_name

__all__ = ["TaskType"]


class TaskType(str, Enum):
    """What a head predicts. The value is the name used in recipes and on the command line."""

    DEPTH_ESTIMATION = "depth"

    @classmethod
    def parse(cls, name: TaskType | str) -> TaskType:
        """Return the task for its value, its enum name or a common synonym, in any case.

        Raises:
            EdgeheadsError: no task is called that; the text lists close matches.
        """
        if isinstance(name, cls):
            return name
        key = str(name).strip().lower().replace("-", "_").replace(" ", "_")
        by_name = {task.name.lower(): task for task in cls} | {task.value: task for task in cls}
        by_name |= _SYNONYMS
        if key not in by_name:
            raise unknown_name("task", str(name), by_name)
        return by_name[key]


_SYNONYMS = {
    "monocular_depth": TaskType.DEPTH_ESTIMATION,
    "mono_depth": TaskType.DEPTH_ESTIMATION,
}
