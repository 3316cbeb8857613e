"""Verification: it passes what is whole, and each check can fail."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgeheads.bundle import Bundle
from edgeheads.data.sources import open_source
from edgeheads.evaluate import bundle_predictor, evaluate, score
from edgeheads.runtime import DeviceSession
from edgeheads.tasks import get_task
from edgeheads.verify import verify

if TYPE_CHECKING:
    from conftest import TinyModels
    from edgeheads.convert import ConvertResult


@pytest.fixture
def copy(converted: ConvertResult, tmp_path: Path) -> Bundle:
    folder = tmp_path / "a copy – ünïcode"
    shutil.copytree(converted.bundles["int8"].folder, folder)
    return Bundle(folder)


def rewrite(
    bundle: Bundle, model: bytes | None = None, golden: dict[str, Any] | None = None
) -> Bundle:
    """Change parts of a Bundle, hashes included, as a careless tool might."""
    manifest = json.loads((bundle.folder / "manifest.json").read_text())
    np.savez_compressed(bundle.folder / "golden.npz", **golden)
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((bundle.folder / name).read_bytes()).hexdigest()
    (bundle.folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle(bundle.folder)


def failures(bundle: Bundle) -> list[str]:
    with DeviceSession() as session:
        checks = verify(bundle, session)
    stored = json.loads((bundle.folder / "verification.json").read_text())
    assert stored["passed"] == all(check.passed for check in checks)
    return [f"{check.name}: {check.detail}" for check in checks if not check.passed]


def test_copied_bundle_passes_bit_for_bit(copy: Bundle) -> None:
    with DeviceSession() as session:
        checks = verify(copy, session)
    assert all(check.passed for check in checks)
    repeats = [check.detail for check in checks if "repeats" in check.name]
    assert repeats == ["bit-exact", "bit-exact"]


def test_golden_output_that_is_not_repeated(copy: Bundle) -> None:
    golden = copy.golden()
    golden["expected/depth_code"] = golden["expected/depth_code"] ^ 0x10
    [found] = failures(rewrite(copy, golden=golden))
    assert found.startswith("depth_code repeats the golden output: 0.00% equal, 99 % within 16")


def test_output_far_from_the_float_model(copy: Bundle) -> None:
    golden = copy.golden()
    golden["reference/confidence"] = golden["reference/confidence"][:, ::-1] + 0.2
    [found] = failures(rewrite(copy, golden=golden))
    assert found.startswith("confidence is close to the float model: mean difference")


def test_contract_that_is_not_the_file_s(copy: Bundle) -> None:
    tensor = replace(copy.contract.image.tensor, scale=0.5)
    manifest = json.loads((copy.folder / "manifest.json").read_text())
    manifest["contract"]["image"]["tensor"]["scale"] = tensor.scale
    (copy.folder / "manifest.json").write_text(json.dumps(manifest))
    assert any(
        found.startswith("tensors match the contract: image: expected TensorSpec(")
        for found in failures(Bundle(copy.folder))
    )


def test_contract_with_a_tensor_the_file_does_not_have(copy: Bundle) -> None:
    """The golden outputs cannot be compared then, which is a failed check and no crash."""
    manifest = json.loads((copy.folder / "manifest.json").read_text())
    manifest["contract"]["outputs"][0]["name"] = "other"
    (copy.folder / "manifest.json").write_text(json.dumps(manifest))
    tensors, golden = failures(Bundle(copy.folder))
    assert tensors.startswith("tensors match the contract: confidence: expected None, received")
    assert golden == "golden images: not run: the tensors are not the contract's"


def test_float_file_that_claims_to_be_int8(converted: ConvertResult, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(converted.bundles["float32"].folder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "precision": "int8"}))
    [found] = failures(Bundle(folder))
    assert found.startswith("every node computes in integers: 0 of")


def test_node_that_the_delegate_leaves(tiny_models: TinyModels) -> None:
    from edgeheads.compression.quantize.schemes import get_scheme
    from edgeheads.verify import _built_in, _delegated, _integer

    with DeviceSession() as session:
        facts = session.inspect(tiny_models.split)
    assert _built_in(facts).passed
    assert _integer(facts, get_scheme("int8")).passed
    check = _delegated(facts, get_scheme("int8"))
    assert not check.passed
    assert "REVERSE_V2 (int8)" in check.detail


def test_evaluation_alone_is_the_one_that_convert_stored(
    converted: ConvertResult, copy: Bundle
) -> None:
    with DeviceSession() as session:
        again = evaluate(copy, session)
    assert again["metrics"] == converted.evaluations["int8"]["metrics"]
    assert again["ranges"] == converted.evaluations["int8"]["ranges"]


def test_scores_do_not_depend_on_the_chunks(
    converted: ConvertResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = converted.bundles["float32"]
    monkeypatch.setattr("edgeheads.evaluate._CHUNK", 2)
    size = bundle.contract.image.size
    source = open_source(bundle.recipe["data"], "test", size=size, seed=bundle.recipe["seed"])
    with DeviceSession() as session:
        predict = bundle_predictor(bundle, session)
        scores = score(get_task("depth"), bundle.contract.decoding, source, predict, size)
    assert scores["metrics"] == converted.evaluations["float32"]["metrics"]


@pytest.mark.parametrize(
    ("fast_for", "allowed"),
    [
        ("any", []),
        ("xnnpack", ["HARD_SWISH"]),
        ("xnnpack-amx", ["HARD_SWISH", "DEPTHWISE_CONV_2D", "MUL"]),
    ],
)
def test_only_what_a_fast_file_needs_may_stay_float(fast_for: str, allowed: list[str]) -> None:
    from edgeheads.compression.quantize.schemes import get_scheme
    from edgeheads.export.xnnpack import FAST_FLOAT
    from edgeheads.verify import _integer

    def passes(*ops: str) -> bool:
        nodes = [{"op": op, "dtypes": "float32"} for op in ops]
        facts = {"non_integer": nodes, "integer_nodes": 4, "nodes": 4 + len(nodes)}
        return _integer(facts, get_scheme("int8"), FAST_FLOAT[fast_for]).passed

    assert passes()
    for op in ("HARD_SWISH", "DEPTHWISE_CONV_2D", "MUL", "CONV_2D"):
        assert passes("DEQUANTIZE", op, "QUANTIZE") is (op in allowed)
