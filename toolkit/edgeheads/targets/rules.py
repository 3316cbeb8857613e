"""Which operations of a file a target runs by its published rules, and why it leaves the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeheads.device import read_yaml
from edgeheads.errors import EdgeheadsError, unknown_name
from edgeheads.resources import resource_dir
from edgeheads.targets.graph import Operation
from edgeheads.targets.limits import LIMITS

__all__ = ["Placement", "RuleSet", "load_rules", "place"]

_KEYS = {
    "title": str,
    "types": list,
    "max_rank": int,
    "single_partition": bool,
    "source": str,
    "ops": dict,
}


@dataclass(frozen=True)
class RuleSet:
    """What a target's maker publishes of the operations it runs.

    Attributes:
        title: of the target.
        types: of the tensors that flow through it.
        max_rank: how many inner dimensions of a tensor may be larger than 1.
        single_partition: once an operation is left to the CPU, so is all that depends on it.
        source: the document.
        ops: operation to its limits, by their names in `LIMITS`, with the value of each.
        notes: operation to what is published, but cannot be told from the file.
    """

    title: str
    types: tuple[str, ...]
    max_rank: int
    single_partition: bool
    source: str
    ops: dict[str, dict[str, int]]
    notes: dict[str, str]


@dataclass(frozen=True)
class Placement:
    """Where an operation would run.

    Attributes:
        index: of the operation, in the order of execution.
        op: its name.
        is_mapped: whether the target runs it; otherwise the CPU does.
        reason: why it does not; for one that it runs, what else is published.
    """

    index: int
    op: str
    is_mapped: bool
    reason: str = ""


def load_rules(name: str) -> RuleSet:
    """Read devices/rules/NAME.yaml.

    Raises:
        EdgeheadsError: no such file; a key or a limit that is unknown or of the wrong type.
    """
    folder = resource_dir("devices") / "rules"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("op_rules", name, [one.stem for one in folder.glob("*.yaml")])
    return parse_rules(path, read_yaml(path, "rules file"))


def parse_rules(path: Path, content: dict[str, Any]) -> RuleSet:
    """Build the rules from a file's content, strictly; the path is for errors."""
    for key in content:
        if key not in _KEYS:
            raise EdgeheadsError(f"{path}: {unknown_name('key', str(key), _KEYS)}")
    for key, kind in _KEYS.items():
        if type(content.get(key)) is not kind:
            raise EdgeheadsError(
                f"{path}: {key} must be {kind.__name__}, received {content.get(key)!r}"
            )
    limits: dict[str, dict[str, int]] = {}
    notes: dict[str, str] = {}
    for op, wanted in content["ops"].items():
        if not isinstance(wanted, dict):
            raise EdgeheadsError(
                f"{path}: ops.{op} must be a mapping of limits, received {wanted!r}"
            )
        wanted = dict(wanted)
        if "note" in wanted:
            notes[op] = str(wanted.pop("note"))
        for limit, value in wanted.items():
            if limit not in LIMITS:
                raise EdgeheadsError(f"{path}: ops.{op}: {unknown_name('limit', limit, LIMITS)}")
            if value is not True and (type(value) is not int or value < 1):
                raise EdgeheadsError(
                    f"{path}: ops.{op}.{limit} must be true or a positive integer, "
                    f"received {value!r}"
                )
        limits[op] = wanted
    return RuleSet(
        content["title"],
        tuple(content["types"]),
        content["max_rank"],
        content["single_partition"],
        content["source"],
        limits,
        notes,
    )


def place(operations: Sequence[Operation], rules: RuleSet) -> list[Placement]:
    """Return where each operation would run, in the order of execution."""
    placements = []
    cpu_tensors: dict[int, int] = {}
    for op in operations:
        reason = _reason(op, rules)
        is_edge = _is_conversion(op)
        if not reason and rules.single_partition:
            before = [cpu_tensors[one.index] for one in op.inputs if one.index in cpu_tensors]
            if before:
                earlier = operations[before[0]]
                reason = (
                    f"it comes after {earlier.name} (operation {earlier.index}), which the CPU "
                    "runs; the target takes one part of the graph only"
                )
        # A conversion from or to floats at the graph's edge runs on the CPU, and ends no part.
        if reason and not (is_edge and op.inputs[0].dtype.startswith("float")):
            cpu_tensors.update({one.index: op.index for one in op.outputs})
        note = rules.notes.get(op.name, "")
        placements.append(Placement(op.index, op.name, not reason, reason or note))
    return placements


def _reason(op: Operation, rules: RuleSet) -> str:
    """Return why the target does not run an operation by itself; empty where it does."""
    if op.name not in rules.ops:
        return f"{rules.title} has no such operation"
    flowing = [one for one in (*op.inputs, *op.outputs) if not one.is_constant]
    for tensor in flowing:
        if tensor.dtype not in rules.types:
            return f"{tensor.dtype} flows through it; {' or '.join(rules.types)} must"
        if min(tensor.shape, default=1) < 0:
            return f"the shape {list(tensor.shape)} is open; sizes must be fixed"
        if tensor.rank > rules.max_rank:
            return (
                f"a tensor of shape {list(tensor.shape)} has {tensor.rank} dimensions larger than "
                f"1, counted from the last; {rules.max_rank} are allowed"
            )
    broken = (LIMITS[limit](op, int(value)) for limit, value in rules.ops[op.name].items())
    return next((reason for reason in broken if reason), "")


def _is_conversion(op: Operation) -> bool:
    return op.name in ("QUANTIZE", "DEQUANTIZE")
