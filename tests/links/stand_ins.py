"""Programs that stand in for ones that are not here, on a PATH of their own."""

from __future__ import annotations

from pathlib import Path

# Runs what it is asked here, as a device would; the file `unplugged` beside it plays the cable.
ADB = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
[ "$1" = -s ] && shift 2
[ -e "$(dirname "$0")/unplugged" ] && { echo "adb: device offline" >&2; exit 255; }
[ "$1" = shell ] && [ "$2" = -T ] || { echo "adb: usage" >&2; exit 1; }
shift 2
exec sh -c "$*"
"""

# The user and the settings of Termux mean nothing here.
RUN_AS = """#!/bin/sh
shift
[ "$1" = env ] && shift
while true; do case $1 in *=*) shift;; *) break;; esac; done
exec "$@"
"""

DEVICE = {"adb": ADB, "run-as": RUN_AS}

# What Google's compiler printed for a public model whose head did not fit.
EDGETPU_LOG = """Edge TPU Compiler version 16.0.384591198

Model compiled successfully in 522 ms.

Input model: model.tflite
Input size: 2.50KiB
Output model: model_edgetpu.tflite
Output size: 3.10KiB
On-chip memory used for caching model parameters: 3.33MiB
On-chip memory remaining for caching model parameters: 4.50MiB
Off-chip memory used for streaming uncached model parameters: 0.50KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 5
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU.

Number of operations that will run on Edge TPU: 1
Number of operations that will run on CPU: 4

Operator                       Count      Status

CONV_2D                        1          Mapped to Edge TPU
CONV_2D                        1          More than one subgraph is not supported
REVERSE_V2                     1          Operation not supported
MEAN                           1          More than one subgraph is not supported
LOGISTIC                       1          More than one subgraph is not supported
"""


def install(folder: Path, programs: dict[str, str]) -> Path:
    """Write the programs into a folder, name to script."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
    return folder
