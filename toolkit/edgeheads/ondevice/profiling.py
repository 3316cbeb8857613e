"""What each operation costs.

Python's interpreters have no profiler. A graph is therefore cut behind its first operation, its
second and so on; each of these files is timed as a whole, and an operation costs what its file
takes longer than the one before. A delegate sees the same neighbours as in the whole file, up to
the cut: what it fuses across the cut (an activation into the convolution in front of it) is
counted with the later operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from edgeheads.ondevice.failure import MeasureError
from edgeheads.ondevice.files import check_model_file, file_facts
from edgeheads.ondevice.flatbuffer import ModelFile
from edgeheads.ondevice.graph import graph_nodes, setup_facts
from edgeheads.ondevice.interpreter import Runtime, load_model, require_fixed_shapes
from edgeheads.ondevice.machine import conditions
from edgeheads.ondevice.timing import fill_inputs, repeat

__all__ = ["profile"]

_WARMUP_RUNS = 3
_MAX_SECONDS = 5.0
_METHOD = (
    "difference of prefixes: the graph is cut behind every operation, each cut is timed as a "
    "file of its own, and an operation costs what its cut takes longer than the one before; the "
    "median over the rounds of the difference of p50s of neighbours in time. The first one "
    "includes what an empty invoke call costs; differences of a few microseconds are noise, of "
    "either sign"
)


def profile(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return the milliseconds of every operation of the primary graph."""
    check_model_file(request["model"])
    model = load_model(request, runtime)
    require_fixed_shapes(model)
    nodes, partitions = graph_nodes(model.interpreter)
    file = ModelFile(Path(request["model"]).read_bytes())
    if len(file.operators) != len(nodes):
        raise MeasureError(
            "bad-model",
            f"expected {len(nodes)} operations in the file, as the interpreter counts them, "
            f"received {len(file.operators)}; this file cannot be profiled by cutting it",
        )
    before = conditions()
    rounds = [_round(file, request, runtime) for _ in range(request["rounds"])]
    rows = []
    for place, node in enumerate(nodes):
        costs = [taken[place] for taken in rounds]
        known = [cost for cost in costs if cost is not None]
        rows.append(
            {
                "index": node.index,
                "op": node.op,
                "dtypes": node.dtypes,
                "delegated": node.is_delegated,
                "ms": median(known) if known else None,
                "spread_ms": max(known) - min(known) if known else None,
            }
        )
    totals = [sum(cost for cost in taken if cost is not None) for taken in rounds]
    return {
        **file_facts(request["model"]),
        **setup_facts(request, nodes, partitions),
        "method": _METHOD,
        "ops": rows,
        "total_ms": median(totals),
        "runs": request["runs"],
        "rounds": request["rounds"],
        "conditions_before": before,
        "conditions_after": conditions(),
    }


def _round(file: ModelFile, request: Mapping[str, Any], runtime: Runtime) -> list[float | None]:
    """Return what each operation adds; None for one that cannot be cut from the next."""
    costs: list[float | None] = []
    last = 0.0
    for count in range(1, len(file.operators) + 1):
        taken = _prefix_ms(file.prefix(count), request, runtime)
        costs.append(None if taken is None else taken - last)
        last = last if taken is None else taken
    return costs


def _prefix_ms(content: bytes, request: Mapping[str, Any], runtime: Runtime) -> float | None:
    try:
        model = load_model(request, runtime, content)
        fill_inputs(model, request)
        repeat(model.interpreter, _WARMUP_RUNS, _MAX_SECONDS)
    except MeasureError as error:
        # A constant that is unpacked for the next operation alone is no graph by itself.
        if error.kind in ("bad-model", "run-failed"):
            return None
        raise
    return median(repeat(model.interpreter, request["runs"], _MAX_SECONDS))
