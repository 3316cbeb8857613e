"""The command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENTRY = "from edgeheads.cli import main; main()"

# Makes `import tensorflow` and the like fail, as on a device that does not have them.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
DEVICE_LACKS = {"tensorflow", "keras", "pydantic", "yaml", "rich", "matplotlib", "h5py"}


def run(
    *arguments: object, cwd: Path | None = None, without: set[str] | None = None
) -> subprocess.CompletedProcess[str]:
    script = (BLOCK.format(blocked=without) if without else "") + ENTRY
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
