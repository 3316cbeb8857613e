"""The operations of a model, and which of them a delegate took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Node", "graph_nodes", "listed", "setup_facts", "tensor_facts"]


@dataclass(frozen=True)
class Node:
    """One operation of the model's graph."""

    index: int
    op: str
    dtypes: str
    is_integer: bool
    is_delegated: bool


def graph_nodes(interpreter: Any) -> tuple[list[Node], int]:
    """Return the model's own nodes, and how many partitions of them a delegate runs.

    A delegate appends one DELEGATE node per partition to the list and leaves the nodes that it
    replaced where they were. Those are found by walking from the partition's outputs back to
    its inputs.
    """
    ops = interpreter._get_ops_details()
    partitions = [op for op in ops if op["op_name"] == "DELEGATE"]
    ops = [op for op in ops if op["op_name"] != "DELEGATE"]
    producer = {int(tensor): op for op in ops for tensor in op["outputs"]}
    replaced: set[int] = set()
    for partition in partitions:
        inputs = {int(tensor) for tensor in partition["inputs"]}
        pending = [int(tensor) for tensor in partition["outputs"]]
        while pending:
            tensor = pending.pop()
            if tensor in inputs or tensor not in producer:
                continue
            op = producer[tensor]
            if op["index"] not in replaced:
                replaced.add(op["index"])
                pending.extend(int(tensor) for tensor in op["inputs"])
    # Constants are neither the graph's inputs nor any node's outputs, and do not flow.
    flowing = {int(details["index"]) for details in interpreter.get_input_details()}
    flowing.update(producer)
    dtypes = {
        int(details["index"]): np.dtype(details["dtype"])
        for details in interpreter.get_tensor_details()
        if int(details["index"]) in flowing
    }
    return [_node(op, dtypes, op["index"] in replaced) for op in ops], len(partitions)


def _node(op: Mapping[str, Any], dtypes: Mapping[int, np.dtype[Any]], is_delegated: bool) -> Node:
    """Describe a node by the types of what flows through it: `dtypes`, by tensor index."""
    operands = [dtypes[int(tensor)] for tensor in op["inputs"] if int(tensor) in dtypes]
    results = [dtypes[int(tensor)] for tensor in op["outputs"] if int(tensor) in dtypes]
    before = "+".join(sorted({dtype.name for dtype in operands}))
    after = "+".join(sorted({dtype.name for dtype in results}))
    return Node(
        index=int(op["index"]),
        op=str(op["op_name"]),
        dtypes=after if before in ("", after) else f"{before}->{after}",
        is_integer=bool(results) and all(dtype.kind in "iub" for dtype in operands + results),
        is_delegated=is_delegated,
    )


def setup_facts(request: Mapping[str, Any], nodes: list[Node], partitions: int) -> dict[str, Any]:
    """Return how a model was loaded, and how much of it the delegate took."""
    return {
        "threads": request["threads"],
        "delegate": request["delegate"],
        "nodes": len(nodes),
        "delegated_nodes": sum(node.is_delegated for node in nodes),
        "delegate_partitions": partitions,
    }


def listed(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """Return nodes as plain JSON values."""
    return [{"index": node.index, "op": node.op, "dtypes": node.dtypes} for node in nodes]


def tensor_facts(name: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an input or output; scale and zero_point are None unless there is one of each."""
    scales = details["quantization_parameters"]["scales"]
    zero_points = details["quantization_parameters"]["zero_points"]
    quantized = len(scales) == 1
    return {
        "name": name,
        "tensor_name": details["name"],
        "shape": [int(size) for size in details["shape"]],
        "shape_signature": [int(size) for size in details["shape_signature"]],
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scales[0]) if quantized else None,
        "zero_point": int(zero_points[0]) if quantized else None,
    }
