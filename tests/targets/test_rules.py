"""Where operations would run by a target's published rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.resources import resource_dir
from edgeheads.targets.graph import Operation, Tensor, read_operations
from edgeheads.targets.limits import LIMITS
from edgeheads.targets.rules import load_rules, parse_rules, place

EDGETPU = load_rules("edgetpu")


def _flow(index: int, *shape: int, dtype: str = "int8") -> Tensor:
    return Tensor(index, shape, dtype)


def _constant(value: Any, dtype: str = "int32") -> Tensor:
    array = np.asarray(value, dtype)
    return Tensor(90, array.shape, dtype, array.ravel())


def _op(name: str, inputs: list[Tensor], output: Tensor, **options: Any) -> Operation:
    return Operation(0, name, tuple(inputs), (output,), options)


IMAGE, SMALL, VECTOR = _flow(0, 1, 8, 8, 6), _flow(1, 1, 4, 4, 6), _flow(2, 1, 6)
WEIGHTS = Tensor(80, (6, 3, 3, 6), "int8", np.ones(324, np.int8), scales=6)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (_op("ADD", [IMAGE, IMAGE], IMAGE), ""),
        (_op("CONV_2D", [IMAGE, WEIGHTS], IMAGE, dilationWFactor=2, dilationHFactor=2), ""),
        (_op("GELU", [IMAGE], IMAGE), "Edge TPU has no such operation"),
        (
            _op("CONV_2D", [IMAGE, WEIGHTS], IMAGE, dilationWFactor=2, dilationHFactor=1),
            "its dilation is 2 in x and 1 in y; they must be the same",
        ),
        (
            _op("CONV_2D", [IMAGE, _flow(7, 1, 3, 3, 6)], IMAGE),
            "1 of its weights are computed, not constant",
        ),
        (
            _op("AVERAGE_POOL_2D", [IMAGE], SMALL, fusedActivationFunction=3),
            "it has a fused activation (number 3 of the schema)",
        ),
        (
            _op("CONCATENATION", [IMAGE, IMAGE, _constant([0], "int8")], IMAGE),
            "it joins a constant with 2 tensors; 1 is allowed",
        ),
        (
            _op("CONCATENATION", [IMAGE, _constant([0, 1], "int8")], IMAGE),
            "it joins a constant that is not all zeros",
        ),
        (_op("CONCATENATION", [IMAGE, _constant([0, 0], "int8")], IMAGE), ""),
        (
            _op("FULLY_CONNECTED", [IMAGE, WEIGHTS], SMALL),
            "its output [1, 4, 4, 6] has 3 dimensions; 1 are allowed",
        ),
        (_op("FULLY_CONNECTED", [IMAGE, WEIGHTS], VECTOR), ""),
        (_op("MEAN", [IMAGE, _constant([1, 2])], VECTOR), ""),
        (_op("MEAN", [IMAGE, _constant([0])], IMAGE), "it reduces the batch dimension"),
        (
            _op("MEAN", [IMAGE, _constant([-1])], IMAGE),
            "it reduces 6 channels; only a multiple of 4 is allowed",
        ),
        (_op("SUM", [IMAGE, _flow(5, 1)], VECTOR), "its axes are computed, not constant"),
        (_op("PAD", [IMAGE, _constant([[0, 0], [1, 1], [1, 1], [0, 0]])], IMAGE), ""),
        (
            _op("PAD", [IMAGE, _constant([[1, 0], [0, 0], [0, 0], [0, 0]])], IMAGE),
            "it pads the batch dimension",
        ),
        (_op("SPLIT", [_constant([0]), IMAGE], SMALL), "it splits the batch dimension"),
        (_op("SPLIT", [_constant([3]), IMAGE], SMALL), ""),
        (_op("PACK", [VECTOR, VECTOR], _flow(6, 1, 2, 6), axis=1), ""),
        (_op("PACK", [VECTOR, VECTOR], _flow(6, 2, 1, 6), axis=0), "it packs the batch dimension"),
        (_op("SOFTMAX", [VECTOR], VECTOR), ""),
        (
            _op("SOFTMAX", [_flow(9, 1, 20000)], _flow(9, 1, 20000)),
            "its input has 20000 elements; 16000 are allowed",
        ),
        (
            _op("PRELU", [IMAGE, Tensor(5, (8, 8, 6), "int8", np.ones(384, np.int8))], IMAGE),
            "its slopes have the shape [8, 8, 6]; only the channels may have their own",
        ),
        (
            _op("STRIDED_SLICE", [IMAGE, _constant([0]), _constant([4]), _constant([2])], SMALL),
            "its strides are [2]; only 1 is allowed",
        ),
        (
            _op(
                "STRIDED_SLICE",
                [IMAGE, _constant([0]), _constant([4]), _constant([1])],
                SMALL,
                newAxisMask=1,
            ),
            "it uses newAxisMask",
        ),
        (
            _op("ADD", [_flow(3, 1, 8, dtype="float32")], VECTOR),
            "float32 flows through it; int8 or uint8 must",
        ),
        (
            _op("ADD", [_flow(3, -1, 8)], VECTOR),
            "the shape [-1, 8] is open; sizes must be fixed",
        ),
        (
            _op("ADD", [_flow(3, 2, 8, 8, 4)], IMAGE),
            "a tensor of shape [2, 8, 8, 4] has 4 dimensions larger than 1, counted from the last; "
            "3 are allowed",
        ),
    ],
)
def test_one_operation(op: Operation, reason: str) -> None:
    [placement] = place([op], EDGETPU)
    assert placement.is_mapped == (reason == "")
    assert placement.reason == reason


def _chain(*names: str) -> list[Operation]:
    tensors = [_flow(index, 1, 8, 8, 4) for index in range(len(names) + 1)]
    return [
        Operation(index, name, (tensors[index],), (tensors[index + 1],), {})
        for index, name in enumerate(names)
    ]


def test_what_comes_after_an_unmapped_operation_is_left_too() -> None:
    placements = place(_chain("RELU", "GELU", "RELU", "TANH"), EDGETPU)
    assert [one.is_mapped for one in placements] == [True, False, False, False]
    assert placements[3].reason.startswith("it comes after RELU (operation 2), which the CPU runs")


def test_a_branch_that_does_not_depend_on_it_stays() -> None:
    branches = [
        Operation(0, "GELU", (_flow(0, 1, 4),), (_flow(1, 1, 4),), {}),
        Operation(1, "RELU", (_flow(0, 1, 4),), (_flow(2, 1, 4),), {}),
    ]
    assert [one.is_mapped for one in place(branches, EDGETPU)] == [False, True]


def test_quantizing_a_float_input_ends_no_part() -> None:
    ops = [
        Operation(0, "QUANTIZE", (_flow(0, 1, 4, dtype="float32"),), (_flow(1, 1, 4),), {}),
        Operation(1, "RELU", (_flow(1, 1, 4),), (_flow(2, 1, 4),), {}),
    ]
    assert [one.is_mapped for one in place(ops, EDGETPU)] == [False, True]


def test_a_target_of_many_parts_takes_up_again() -> None:
    ops = _chain("RELU", "GELU", "RELU")
    assert [one.is_mapped for one in place(ops, load_rules("gpu"))] == [True, False, True]


def test_a_real_file(tiny_models: Any) -> None:
    operations = read_operations(tiny_models.split)
    assert [op.name for op in operations][:3] == ["CONV_2D", "REVERSE_V2", "CONV_2D"]
    assert operations[0].inputs[1].scales == 4
    assert operations[0].inputs[0].shape == (1, 8, 8, 3)
    assert sum(one.is_mapped for one in place(operations, EDGETPU)) == 1


@pytest.mark.parametrize("content", [b"", b"no TFL3 file", b"\x10\0\0\0TFL3" + b"\xff" * 64])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(EdgeheadsError, match=r"model\.tflite is not a complete \.tflite file"):
        read_operations(tmp_path / "model.tflite")


def test_a_file_cut_short(tmp_path: Path, tiny_models: Any) -> None:
    content = tiny_models.int8.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[: len(content) // 3])
    with pytest.raises(EdgeheadsError, match="is not a complete"):
        read_operations(tmp_path / "cut.tflite")


RULES = {"title": "T", "types": ["int8"], "max_rank": 3, "single_partition": True, "source": "S"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"extra": 1}, "unknown key 'extra'"),
        ({"max_rank": "3"}, "max_rank must be int, received '3'"),
        ({"ops": {"ADD": None}}, "ops.ADD must be a mapping of limits, received None"),
        ({"ops": {"ADD": {"same_dilatoin": True}}}, "did you mean same_dilation?"),
        ({"ops": {"ADD": {"max_elements": 0}}}, "ops.ADD.max_elements must be true or a positive"),
    ],
)
def test_rules_are_read_strictly(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(EdgeheadsError) as caught:
        parse_rules(Path("mine.yaml"), {**RULES, "ops": {}, **change})
    assert str(caught.value).startswith("mine.yaml: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("path", sorted((resource_dir("devices") / "rules").glob("*.yaml")))
def test_every_rules_file_loads(path: Path) -> None:
    assert load_rules(path.stem).ops


def test_every_limit_is_used_by_some_target() -> None:
    """A limit that no rule names is dead, or misspelt in the rules."""
    used = {limit for limits in EDGETPU.ops.values() for limit in limits}
    assert used == set(LIMITS)
