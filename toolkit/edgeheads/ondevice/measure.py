"""Runs one .tflite file on the machine this program lies on, and writes down what it saw.

    python measure.pyz REQUEST.json RESULT.json

The request is an object with an "action" (describe, inspect, bench, profile or predict) and the
keys that `edgeheads.ondevice.request` lists for it. One process answers one request, so that
memory and start-up times are the model's own. The exit status is 0, or 3 when RESULT.json holds
`{"error": {"kind": ..., "message": ...}}`.

`edgeheads.ondevice.archive` packs this folder into measure.pyz, which is copied to devices. What
is in it therefore needs only the standard library, numpy and an interpreter, keeps to Python 3.8,
and imports nothing of the package that is not packed with it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgeheads.ondevice.failure import FAILURE_EXIT_CODE, MeasureError
from edgeheads.ondevice.files import check_model_file, file_facts, write_json
from edgeheads.ondevice.graph import graph_nodes, listed, setup_facts, tensor_facts
from edgeheads.ondevice.interpreter import Runtime, choose_runtime, load_model, out_of_memory
from edgeheads.ondevice.machine import describe
from edgeheads.ondevice.predicting import predict
from edgeheads.ondevice.profiling import profile
from edgeheads.ondevice.request import checked_request
from edgeheads.ondevice.timing import bench

__all__ = ["main"]


def inspect(request: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return what the file contains, and what of it the delegate took.

    Nodes are those of the primary graph; the bodies of control-flow operations are not entered.
    """
    check_model_file(request["model"])
    model = load_model(request, runtime)
    nodes, partitions = graph_nodes(model.interpreter)
    groups: dict[tuple[str, str], Counter[str]] = {}
    for node in nodes:
        group = groups.setdefault((node.op, node.dtypes), Counter(count=0, delegated=0))
        group.update(count=1, delegated=int(node.is_delegated))
    return {
        **file_facts(request["model"]),
        "signature": model.signature,
        "inputs": [tensor_facts(*item) for item in model.inputs.items()],
        "outputs": [tensor_facts(*item) for item in model.outputs.items()],
        "ops": [{"name": op, "dtypes": dtypes, **group} for (op, dtypes), group in groups.items()],
        **setup_facts(request, nodes, partitions),
        "undelegated": listed(node for node in nodes if not node.is_delegated),
        "integer_nodes": sum(node.is_integer for node in nodes),
        "non_integer": listed(node for node in nodes if not node.is_integer),
    }


_ACTIONS: dict[str, Callable[[Mapping[str, Any], Runtime], dict[str, Any]]] = {
    "describe": describe,
    "inspect": inspect,
    "bench": bench,
    "profile": profile,
    "predict": predict,
}


def _answer(request_file: str) -> dict[str, Any]:
    try:
        received = json.loads(Path(request_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasureError(
            "bad-request", f"expected a JSON file, {request_file}: {error}"
        ) from None
    request = checked_request(received)
    runtime = choose_runtime(request["runtime"])
    result = _ACTIONS[request["action"]](request, runtime)
    return {
        "action": request["action"],
        "runtime": {"name": runtime.name, "version": runtime.version},
        **result,
    }


def main(arguments: list[str]) -> int:
    """Answer the request in the first file into the second; return the exit status."""
    if len(arguments) != 2:
        print("usage: python measure.pyz REQUEST.json RESULT.json", file=sys.stderr)
        return 2
    request_file, result_file = arguments
    try:
        write_json(result_file, _answer(request_file))
        return 0
    except MeasureError as error:
        failure = error
    except MemoryError as error:
        failure = out_of_memory(error)
    write_json(result_file, {"error": {"kind": failure.kind, "message": failure.message}})
    return FAILURE_EXIT_CODE
