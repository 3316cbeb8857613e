"""Reading the operations of a .tflite file with their options and constants, without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeheads.errors import EdgeheadsError, MissingDependencyError

__all__ = ["Operation", "Tensor", "read_operations"]


@dataclass(frozen=True)
class Tensor:
    """What an operation reads or writes.

    Attributes:
        index: in the file; two operations that share a tensor name the same one.
        shape: sizes; -1 where the file leaves one open.
        dtype: as NumPy names it; "unknown" for a type NumPy lacks.
        value: of a constant, flat; None for what flows through the graph.
        scales: how many quantization scales it has; 0: not quantized.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str
    value: NDArray[Any] | None = None
    scales: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether its content is in the file."""
        return self.value is not None

    @property
    def rank(self) -> int:
        """How many dimensions there are from the first that is larger than 1."""
        leading = next((i for i, size in enumerate(self.shape) if size != 1), len(self.shape))
        return len(self.shape) - leading


@dataclass(frozen=True)
class Operation:
    """One node of the file's first graph.

    Attributes:
        index: in the order of execution.
        name: of the built-in operation, as "CONV_2D"; a custom one has its own.
        inputs: in order, without the optional ones that are left out.
        outputs: in order.
        options: of the operation, as the schema names them: "strideW", "fusedActivationFunction".
    """

    index: int
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any]


def read_operations(model: Path) -> list[Operation]:
    """Return the operations of a .tflite file in the order of execution.

    Raises:
        EdgeheadsError: the file is not a complete .tflite file.
    """
    schema = _schema()
    content = model.read_bytes()
    try:
        if content[4:8] != b"TFL3":
            raise ValueError(f"its bytes 4 to 7 are {content[4:8]!r}, not b'TFL3'")
        graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        names = [_name(schema, code) for code in graph.operatorCodes]
        main = graph.subgraphs[0]
        tensors = [_tensor(schema, graph, i, one) for i, one in enumerate(main.tensors)]
        return [
            Operation(
                index,
                names[operator.opcodeIndex],
                tuple(tensors[i] for i in operator.inputs if i >= 0),
                tuple(tensors[i] for i in operator.outputs),
                {
                    key: value
                    for options in (operator.builtinOptions, operator.builtinOptions2)
                    if options is not None
                    for key, value in vars(options).items()
                },
            )
            for index, operator in enumerate(main.operators)
        ]
    # A damaged file fails wherever its offsets lead.
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise EdgeheadsError(f"{model} is not a complete .tflite file: {error}") from None
    except Exception as error:
        if type(error).__module__ not in ("struct", "flatbuffers.number_types"):
            raise
        raise EdgeheadsError(f"{model} is not a complete .tflite file: {error}") from None


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependencyError(
            "ai-edge-litert", "runtime", "reading the operations of a .tflite file"
        ) from None
    return schema_py_generated


@cache
def _builtin_names(schema: Any) -> dict[int, str]:
    operators = vars(schema.BuiltinOperator)
    return {value: name for name, value in operators.items() if isinstance(value, int)}


def _name(schema: Any, code: Any) -> str:
    # Files from before the code outgrew a byte have it in the deprecated field.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if number == schema.BuiltinOperator.CUSTOM and code.customCode:
        return f"CUSTOM {code.customCode.decode('utf-8', 'replace')}"
    return _builtin_names(schema).get(number, f"UNKNOWN {number}")


def _dtype(schema: Any, number: int) -> str:
    types = vars(schema.TensorType)
    name = next((name for name, value in types.items() if value == number), "unknown").lower()
    try:
        return np.dtype(name).name
    except TypeError:
        return "unknown"


def _tensor(schema: Any, graph: Any, index: int, tensor: Any) -> Tensor:
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    sizes = tuple(int(size) for size in (() if shape is None else shape))
    dtype = _dtype(schema, tensor.type)
    data = graph.buffers[tensor.buffer].data if tensor.buffer else None
    value = None
    if data is not None and len(data):
        raw = np.asarray(data, np.uint8)
        value = raw if dtype == "unknown" else raw.view(np.dtype(dtype))
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return Tensor(index, sizes, dtype, value, 0 if scales is None else len(scales))
