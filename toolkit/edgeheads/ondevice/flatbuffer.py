"""Cutting a .tflite file behind one of its operations, without a FlatBuffers library.

A FlatBuffer is read through offsets, so that a graph is cut by three small changes to its bytes:
the vector of operations gets a smaller length, the outputs point to a new vector at the end of
the file, and the signatures, which name the old outputs, get the length 0.
"""

from __future__ import annotations

import struct

__all__ = ["ModelFile"]

# Fields, by their place in the tables of TFLite's schema.
_MODEL_SUBGRAPHS, _MODEL_SIGNATURES = 2, 7
_GRAPH_OUTPUTS, _GRAPH_OPERATORS = 2, 3
_OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 1, 2


class ModelFile:
    """The primary graph of a .tflite file that an interpreter has accepted.

    Args:
        content: the file's bytes.
    Attributes:
        operators: (input tensors, output tensors) of every operation, in order.
        outputs: the graph's output tensors.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        model = self._unsigned(0)
        self._signatures = self._field(model, _MODEL_SIGNATURES)
        subgraphs = self._field(model, _MODEL_SUBGRAPHS)
        if subgraphs is None:
            raise ValueError("the model has no graph")
        self._graph = self._follow(self._follow(subgraphs) + 4)
        self.outputs = self._tensors(self._graph, _GRAPH_OUTPUTS)
        operators = self._field(self._graph, _GRAPH_OPERATORS)
        self._operators = 0 if operators is None else self._follow(operators)
        count = self._unsigned(self._operators) if self._operators else 0
        tables = [self._follow(self._operators + 4 + 4 * index) for index in range(count)]
        self.operators = [
            (self._tensors(table, _OPERATOR_INPUTS), self._tensors(table, _OPERATOR_OUTPUTS))
            for table in tables
        ]

    def prefix(self, count: int) -> bytes:
        """Return a file of the first `count` operations.

        Its outputs are the tensors that the rest of the graph, or its user, would have read.
        """
        needed = set(self.outputs)
        for inputs, _ in self.operators[count:]:
            needed.update(inputs)
        made = [tensor for _, outputs in self.operators[:count] for tensor in outputs]
        outputs = [tensor for tensor in made if tensor in needed]
        cut = bytearray(self._content)
        cut.extend(bytes(-len(cut) % 4))
        field = self._field(self._graph, _GRAPH_OUTPUTS)
        if field is None:
            raise ValueError("the graph has no outputs")
        struct.pack_into("<I", cut, field, len(cut) - field)
        cut.extend(struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs))
        struct.pack_into("<I", cut, self._operators, count)
        if self._signatures is not None:
            struct.pack_into("<I", cut, self._follow(self._signatures), 0)
        return bytes(cut)

    def _unsigned(self, position: int) -> int:
        value: int = struct.unpack_from("<I", self._content, position)[0]
        return value

    def _follow(self, position: int) -> int:
        """Return where the offset at a position leads."""
        return position + self._unsigned(position)

    def _field(self, table: int, index: int) -> int | None:
        """Return where a table keeps a field; None where it keeps the default."""
        vtable = table - struct.unpack_from("<i", self._content, table)[0]
        entry = 4 + 2 * index
        if entry >= struct.unpack_from("<H", self._content, vtable)[0]:
            return None
        offset: int = struct.unpack_from("<H", self._content, vtable + entry)[0]
        return table + offset if offset else None

    def _tensors(self, table: int, index: int) -> tuple[int, ...]:
        field = self._field(table, index)
        if field is None:
            return ()
        vector = self._follow(field)
        return struct.unpack_from(f"<{self._unsigned(vector)}i", self._content, vector + 4)
