"""Cutting a graph behind its operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeheads.ondevice.flatbuffer import ModelFile
from edgeheads.runtime import DeviceSession


def _interpreter(content: bytes) -> Any:
    module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize("kind", ["float32", "int8", "split"])
def test_a_cut_computes_what_the_whole_file_computes_there(tiny_models: Any, kind: str) -> None:
    content = getattr(tiny_models, kind).read_bytes()
    module = pytest.importorskip("ai_edge_litert.interpreter")
    whole = module.Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    whole.allocate_tensors()
    [image] = whole.get_input_details()
    values = np.random.default_rng(0).integers(0, 2, image["shape"]).astype(image["dtype"])
    whole.set_tensor(image["index"], values)
    whole.invoke()
    file = ModelFile(content)
    assert len(file.operators) >= 4
    for count in range(1, len(file.operators) + 1):
        cut = _interpreter(file.prefix(count))
        cut.set_tensor(cut.get_input_details()[0]["index"], values)
        cut.invoke()
        assert cut.get_output_details()
        for output in cut.get_output_details():
            expected = whole.get_tensor(output["index"]).astype(np.float64)
            received = cut.get_tensor(output["index"]).astype(np.float64)
            # Kernels round differently: a step of an integer, or the last bits of a float.
            np.testing.assert_allclose(received, expected, atol=1 if kind != "float32" else 1e-5)


def test_the_whole_graph_keeps_its_outputs(tiny_models: Any) -> None:
    file = ModelFile(tiny_models.int8.read_bytes())
    whole = _interpreter(file.prefix(len(file.operators)))
    assert {one["index"] for one in whole.get_output_details()} == set(file.outputs)


def test_every_operation_has_its_time(tiny_models: Any) -> None:
    with DeviceSession() as session:
        result = session.profile_ops(tiny_models.split, runs=3, rounds=2)
        facts = session.inspect(tiny_models.split)
    assert len(result["ops"]) == facts["nodes"] == 5
    assert result["ops"][1]["op"] == "REVERSE_V2"
    assert result["total_ms"] > 0
    assert (result["runs"], result["rounds"]) == (3, 2)
