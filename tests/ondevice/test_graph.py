"""What an interpreter tells of its graph: nodes, what a delegate took of them, and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeheads.ondevice.graph import graph_nodes
from edgeheads.ondevice.interpreter import named_tensors


class FakeInterpreter:
    """A graph 0 -> a -> 1 -> b -> 2 -> c -> (3, 4), of which b and c are in one partition."""

    def _get_ops_details(self) -> list[dict[str, Any]]:
        ops = [
            {"op_name": "QUANTIZE", "inputs": [0], "outputs": [1]},
            {"op_name": "CONV_2D", "inputs": [1, 9, -1], "outputs": [2]},
            {"op_name": "SPLIT", "inputs": [9, 2], "outputs": [3, 4]},
            {"op_name": "DELEGATE", "inputs": [9, 1], "outputs": [3, 4]},
        ]
        return [{"index": index, **op} for index, op in enumerate(ops)]

    def get_tensor_details(self) -> list[dict[str, Any]]:
        return [
            {"index": i, "name": f"t{i}", "dtype": np.float32 if i in (0, 9) else np.int8}
            for i in (0, 1, 2, 3, 4, 9)
        ]

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self.get_tensor_details()[0]]

    def get_output_details(self) -> list[dict[str, Any]]:
        return self.get_tensor_details()[3:5]

    def get_signature_list(self) -> dict[str, Any]:
        return {}


def test_partition_is_walked_back_to_its_inputs() -> None:
    nodes, partitions = graph_nodes(FakeInterpreter())
    assert partitions == 1
    assert [node.is_delegated for node in nodes] == [False, True, True]
    assert [node.dtypes for node in nodes] == ["float32->int8", "int8", "int8"]
    assert [node.is_integer for node in nodes] == [False, True, True]


def test_names_follow_the_signature_and_not_the_order() -> None:
    class Signed(FakeInterpreter):
        def get_signature_list(self) -> dict[str, Any]:
            return {"main": {"inputs": ["image"], "outputs": ["first", "second"]}}

        def get_signature_runner(self, key: str) -> Any:
            outputs = dict(
                zip(["first", "second"], reversed(super().get_output_details()), strict=True)
            )
            return type(
                "Runner",
                (),
                {
                    "get_input_details": lambda _: {"image": self.get_input_details()[0]},
                    "get_output_details": lambda _: outputs,
                },
            )()

    signature, inputs, outputs = named_tensors(Signed())
    assert signature == "main"
    assert {name: details["index"] for name, details in inputs.items()} == {"image": 0}
    assert {name: details["index"] for name, details in outputs.items()} == {
        "first": 4,
        "second": 3,
    }


def test_tensor_names_stand_in_for_a_missing_signature() -> None:
    signature, inputs, outputs = named_tensors(FakeInterpreter())
    assert (signature, list(inputs), list(outputs)) == (None, ["t0"], ["t3", "t4"])
