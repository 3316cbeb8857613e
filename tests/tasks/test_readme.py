"""The instructions for adding a task name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import edgeheads
from edgeheads.tasks.base import Task

PACKAGE = Path(edgeheads.__file__).parent
TEXT = (PACKAGE / "tasks" / "README.md").read_text(encoding="utf-8")


def test_every_method_of_a_task_is_explained() -> None:
    assert [name for name in sorted(Task.__abstractmethods__) if f"`{name}`" not in TEXT] == []


def test_every_file_that_is_named_exists() -> None:
    root = PACKAGE.parents[1]
    named = {name for name in re.findall(r"`([\w./]+\.(?:py|yaml))`", TEXT) if "/" in name}
    assert len(named) >= 8
    missing = [n for n in sorted(named) if not any((at / n).exists() for at in (PACKAGE, root))]
    assert missing == []
