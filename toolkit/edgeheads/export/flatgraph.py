"""The graph inside a .tflite file: its operations, tensors and constants, read and changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import MissingDependencyError, RuntimeFailureError
from edgeheads.tasks.base import Array

__all__ = ["FlatGraph", "Probe", "tflite_schema"]

_IDENTIFIER = b"TFL3"

# Where the runtime's errors say what failed.
_NODE = re.compile(r"Node number (\d+) \((\w+)\) failed to \w+")


class FlatGraph:
    """A .tflite file with one subgraph, as objects that can be changed and written again.

    Tensors are numbered; `operations` run in their order, each after those that feed it.

    Args:
        content: the file's bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._schema, self._flatbuffers = tflite_schema()
        self._model = self._schema.ModelT.InitFromObj(self._schema.Model.GetRootAs(content, 0))
        self._graph = self._model.subgraphs[0]
        self._codes = _names(self._schema.BuiltinOperator)
        self._types = _names(self._schema.TensorType)

    @property
    def operations(self) -> list[Any]:
        """The operations, in the order in which they run."""
        return list(self._graph.operators)

    @property
    def inputs(self) -> list[int]:
        """Numbers of the graph's inputs."""
        return [int(index) for index in self._graph.inputs]

    @property
    def outputs(self) -> list[int]:
        """Numbers of the graph's outputs."""
        return [int(index) for index in self._graph.outputs]

    def kind(self, operation: Any) -> str:
        """Return an operation's name, such as CONV_2D."""
        code = self._model.operatorCodes[operation.opcodeIndex]
        return self._codes[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def readers(self, tensor: int) -> list[Any]:
        """Return the operations that read a tensor."""
        return [one for one in self._graph.operators if tensor in one.inputs]

    def name(self, tensor: int) -> str:
        """Return a tensor's name."""
        return str(self._graph.tensors[tensor].name.decode())

    def dtype(self, tensor: int) -> str:
        """Return a tensor's dtype, such as "int8"."""
        return self._types[self._graph.tensors[tensor].type].lower()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(int(side) for side in self._graph.tensors[tensor].shape)

    def numbers(self) -> dict[str, int]:
        """Return {name: number} of all tensors."""
        return {self.name(index): index for index in range(len(self._graph.tensors))}

    def activations(self) -> list[int]:
        """Return the tensors that depend on the input, inputs first, in computing order."""
        computed = [int(index) for operation in self.operations for index in operation.outputs]
        return [*self.inputs, *computed]

    def depending(self) -> set[int]:
        """Return the tensors that are not the same for every input."""
        found = set(self.inputs)
        for operation in self.operations:
            if not found.isdisjoint(int(one) for one in operation.inputs):
                found |= {int(one) for one in operation.outputs}
        return found

    def scales(self, tensor: int) -> NDArray[np.float64]:
        """Return a tensor's quantization scales: one, or one a channel; empty for a float."""
        quantization = self._graph.tensors[tensor].quantization
        scale = None if quantization is None else quantization.scale
        return np.asarray([] if scale is None else scale, np.float64)

    def dequantize(self, tensor: int, stored: Array) -> Array:
        """Return an activation's values as real numbers."""
        scales = self.scales(tensor)
        if not scales.size:
            return stored
        zero = float(self._graph.tensors[tensor].quantization.zeroPoint[0])
        return (stored - np.float32(zero)) * np.float32(scales[0])

    def quantize(self, tensor: int, real: Array) -> Array:
        """Return real values as an activation stores them."""
        scales = self.scales(tensor)
        if not scales.size:
            return real
        limits = np.iinfo(self.dtype(tensor))
        zero = int(self._graph.tensors[tensor].quantization.zeroPoint[0])
        steps = np.round(real / np.float32(scales[0])) + zero
        return np.clip(steps, limits.min, limits.max).astype(limits.dtype)

    def constant(self, tensor: int) -> Array:
        """Return a copy of a constant's stored values."""
        entry = self._graph.tensors[tensor]
        data = self._model.buffers[entry.buffer].data
        values = np.frombuffer(bytes(bytearray(data)), self.dtype(tensor))
        return values.reshape(self.shape(tensor)).copy()

    def set_constant(self, tensor: int, values: Array) -> None:
        """Replace a constant's stored values; other tensors that share them keep theirs."""
        entry = self._graph.tensors[tensor]
        used = sum(
            other.buffer == entry.buffer
            for subgraph in self._model.subgraphs
            for other in subgraph.tensors
        )
        if used > 1:
            self._model.buffers.append(self._schema.BufferT())
            entry.buffer = len(self._model.buffers) - 1
        stored = np.ascontiguousarray(values, self.dtype(tensor))
        self._model.buffers[entry.buffer].data = np.frombuffer(stored.tobytes(), np.uint8)

    def is_constant(self, tensor: int) -> bool:
        """Tell whether a tensor's values are in the file."""
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def is_same_padded(self, operation: Any) -> bool:
        """Tell whether a convolution pads as much as keeps its stride's share of the size."""
        return bool(operation.builtinOptions.padding == self._schema.Padding.SAME)

    def add_tensor(self, name: str, shape: Sequence[int]) -> int:
        """Add a float32 activation, and return its number."""
        return self._add(name, shape, self._schema.TensorType.FLOAT32, None)

    def add_constant(self, name: str, values: Array) -> int:
        """Add a constant, float32 or int32, and return its number."""
        types = self._schema.TensorType
        kind = types.INT32 if values.dtype == np.int32 else types.FLOAT32
        stored = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        return self._add(name, values.shape, kind, stored)

    def insert_reshape(
        self, source: int, target: int, *, before: Any = None, after: Any = None
    ) -> None:
        """Compute tensor `target` from `source`, next to an operation of this graph."""
        shape = np.asarray(self.shape(target), np.int32)
        options = self._schema.ReshapeOptionsT()
        options.newShape = shape
        inputs = [source, self.add_constant(f"{self.name(target)}/shape", shape)]
        self._insert("RESHAPE", "ReshapeOptions", options, inputs, target, before, after)

    def insert_convolution(
        self, source: int, kernel: Array, bias: Array, target: int, *, before: Any
    ) -> None:
        """Compute `target` by a convolution without padding, kernel [O, kh, kw, I], bias [O]."""
        options = self._schema.Conv2DOptionsT()
        options.padding = self._schema.Padding.VALID
        options.strideW = options.strideH = 1
        name = self.name(target)
        weights = self.add_constant(f"{name}/weights", kernel.astype(np.float32))
        inputs = [source, weights, self.add_constant(f"{name}/bias", bias.astype(np.float32))]
        self._insert("CONV_2D", "Conv2DOptions", options, inputs, target, before)

    def insert_concatenation(
        self, sources: Sequence[int], target: int, *, axis: int, before: Any
    ) -> None:
        """Compute `target` by putting maps one behind the other."""
        options = self._schema.ConcatenationOptionsT()
        options.axis = axis
        self._insert(
            "CONCATENATION", "ConcatenationOptions", options, list(sources), target, before
        )

    def insert_slice(self, source: int, begin: Sequence[int], target: int, *, before: Any) -> None:
        """Compute `target` as the part of `source` of its shape that begins at `begin`."""
        name = self.name(target)
        inputs = [
            source,
            self.add_constant(f"{name}/begin", np.asarray(begin, np.int32)),
            self.add_constant(f"{name}/size", np.asarray(self.shape(target), np.int32)),
        ]
        self._insert("SLICE", "SliceOptions", self._schema.SliceOptionsT(), inputs, target, before)

    def remove(self, operation: Any) -> None:
        """Take an operation out."""
        self._graph.operators = [one for one in self._graph.operators if one is not operation]

    def _insert(
        self,
        kind: str,
        options_name: str,
        options: Any,
        inputs: Sequence[int],
        target: int,
        before: Any,
        after: Any = None,
    ) -> None:
        operation = self._schema.OperatorT()
        operation.opcodeIndex = self._code(getattr(self._schema.BuiltinOperator, kind))
        operation.inputs = np.asarray(inputs, np.int32)
        operation.outputs = np.asarray([target], np.int32)
        operation.builtinOptionsType = getattr(self._schema.BuiltinOptions, options_name)
        operation.builtinOptions = options
        neighbour = before if after is None else after
        place = next(i for i, one in enumerate(self._graph.operators) if one is neighbour)
        self._graph.operators.insert(place + (after is not None), operation)

    def _add(self, name: str, shape: Sequence[int], kind: int, data: Any) -> int:
        tensor = self._schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.asarray(shape, np.int32)
        tensor.type = kind
        tensor.buffer = len(self._model.buffers)
        buffer = self._schema.BufferT()
        buffer.data = data
        self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _code(self, operator: int) -> int:
        """Return the place of an operator in the file's table, where it is added if missing."""
        codes = self._model.operatorCodes
        for place, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == operator:
                return place
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = operator
        code.version = 1
        codes.append(code)
        return len(codes) - 1

    def set_range(self, tensor: int, low: float, high: float) -> None:
        """Note the range of a float activation, for a quantizer to read."""
        quantization = self._schema.QuantizationParametersT()
        quantization.min = np.array([low], np.float32)
        quantization.max = np.array([high], np.float32)
        self._graph.tensors[tensor].quantization = quantization

    def to_bytes(self) -> bytes:
        """Return the file."""
        builder = self._flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def exposing(self, tensors: Sequence[int], operations: int | None = None) -> bytes:
        """Return a file that returns other tensors, of the first `operations` operations only."""
        graph, signatures = self._graph, self._model.signatureDefs
        kept = graph.operators, graph.outputs
        graph.operators = graph.operators[:operations]
        graph.outputs = np.asarray(tensors, np.int32)
        self._model.signatureDefs = None
        try:
            return self.to_bytes()
        finally:
            graph.operators, graph.outputs = kept
            self._model.signatureDefs = signatures


class Probe:
    """Computes tensors inside a graph of one input.

    Args:
        graph: the graph.
        tensors: numbers of the activations to see.
        operations: run the first so many only; None runs all.
        threads: of the interpreter.

    Raises:
        RuntimeFailureError: there or in `run`, the runtime has no kernel for an operation as it
            stands in the graph, or one that refuses its values; the text names it.
    """

    def __init__(
        self,
        graph: FlatGraph,
        tensors: Sequence[int],
        operations: int | None = None,
        threads: int = 2,
    ) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependencyError(
                "ai-edge-litert", "convert", "measuring ranges of activations"
            ) from None
        [self._input] = graph.inputs
        self._graph = graph
        # An input that is asked for needs no computing, and may not be an output.
        self._given = [tensor for tensor in tensors if tensor == self._input]
        computed = [tensor for tensor in tensors if tensor != self._input]
        self._interpreter = Interpreter(
            model_content=graph.exposing(computed, operations), num_threads=threads
        )
        with self._failures():
            self._interpreter.allocate_tensors()
        self._computed = computed

    def run(self, images: Iterable[Array]) -> Iterator[dict[int, Array]]:
        """Yield the stored values of the tensors for each real-valued image [1, H, W, 3]."""
        for image in images:
            stored = self._graph.quantize(self._input, image)
            self._interpreter.set_tensor(self._input, stored)
            with self._failures():
                self._interpreter.invoke()
            values = {tensor: self._interpreter.get_tensor(tensor) for tensor in self._computed}
            yield {**dict.fromkeys(self._given, stored), **values}

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            text = " ".join(str(error).split())
            found = _NODE.search(text)
            where = "an operation"
            if found:
                place, where = int(found[1]), found[2]
                operations = self._graph.operations
                # A delegate's nodes are counted behind the graph's own.
                if place < len(operations) and self._graph.kind(operations[place]) == where:
                    where += f" {self._graph.name(int(operations[place].outputs[0]))!r}"
                text = text[: found.start()].rstrip(" .;") or found[0]
            whole = any(self._graph.scales(one).size for one in self._graph.activations())
            raise RuntimeFailureError(
                f"the runtime cannot compute {where} of this graph ({text[:300]}); build it of "
                f"other operations{', or choose a scheme of floats, such as float16' * whole}"
            ) from error


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def tflite_schema() -> tuple[Any, Any]:
    """Return the modules of the .tflite schema and of FlatBuffers."""
    try:
        import flatbuffers

        try:
            from ai_edge_litert import schema_py_generated as schema
        except ImportError:
            from tensorflow.lite.python import schema_py_generated as schema
    except ImportError:
        raise MissingDependencyError("tensorflow", "convert", "converting a model") from None
    return schema, flatbuffers
