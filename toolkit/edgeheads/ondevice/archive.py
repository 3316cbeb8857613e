"""Packing the measuring program into one file that any Python runs."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

__all__ = ["ARCHIVE_NAME", "archive_sources", "measuring_program"]

ARCHIVE_NAME = "measure.pyz"

_PACKAGE = Path(__file__).parent.parent
# What the program shares with the package: the contract's preprocessing is timed by its own code.
_SHARED = ("contract.py", "errors.py")
_MAIN = """\
import sys

from edgeheads.ondevice.measure import main

sys.exit(main(sys.argv[1:]))
"""
# A ZIP file holds no earlier date; with one and the same, equal sources give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def archive_sources() -> dict[str, Path]:
    """Return the files that go into the archive, by their path in it."""
    here = Path(__file__)
    modules = [path for path in sorted(here.parent.glob("*.py")) if path.name != here.name]
    paths = [*modules, *(_PACKAGE / name for name in _SHARED)]
    return {f"edgeheads/{path.relative_to(_PACKAGE).as_posix()}": path for path in paths}


@cache
def measuring_program() -> bytes:
    """Return measure.pyz. Its package `edgeheads` is this one, as far as a device needs it."""
    contents = {"__main__.py": _MAIN.encode(), "edgeheads/__init__.py": b""}
    contents |= {name: path.read_bytes() for name, path in archive_sources().items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _DATE)
            archive.writestr(entry, content)
    return buffer.getvalue()
