"""Proving that a Bundle's file is what its manifest promises, on the device that will run it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeheads.bundle import Bundle
from edgeheads.compression.quantize.schemes import Scheme, get_scheme
from edgeheads.contract import TensorSpec
from edgeheads.export.xnnpack import FAST_FLOAT
from edgeheads.runtime import DeviceSession
from edgeheads.tasks.base import Array

__all__ = ["Check", "golden_repeats", "verify"]

# Largest mean difference between the file's outputs and the float model's, as a share of the
# float output's range.
_PARITY = {"float32": 1e-4, "float16": 1e-2}
_INTEGER_PARITY = 0.05

# Largest difference between two runs of one file by different kernels: for floats as a share of
# the output's range, for integers in quantization steps that 99 % of the values must keep. Floats
# that were computed in integers are held to as many steps of 255 to their range.
_REPEAT = {"float32": 1e-4, "float16": 1e-2}
_REPEAT_STEPS = 2

_STEPS = 255
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}


@dataclass(frozen=True)
class Check:
    """One promise and whether it holds.

    Attributes:
        name: of the promise.
        passed: whether it holds.
        detail: what was found.
    """

    name: str
    passed: bool
    detail: str


# Operations with weights: what mixed precision keeps float, with conversions around them.
_LAYER_OPS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}

_NOT_RUN = Check("golden images", False, "not run: the tensors are not the contract's")


def verify(bundle: Bundle, session: DeviceSession) -> list[Check]:
    """Check a Bundle on a device, and store verification.json.

    The hashes were checked when the Bundle was opened. Checked here: the tensors are the
    contract's; the operators are built in; an integer file is integer throughout, or in all layers
    but those that a budget kept float; the delegate takes every node; the golden images give the
    expected outputs again, and outputs close to the float model's.
    """
    scheme = get_scheme(bundle.precision)
    facts = session.inspect(bundle.model_path)
    golden = bundle.golden()
    tensors = _tensors(bundle, facts)
    checks = [
        tensors,
        _built_in(facts),
        *([_integers(bundle, facts)] if scheme.calibrated else []),
        _delegated(facts, scheme),
        *(_golden(bundle, golden, session) if tensors.passed else [_NOT_RUN]),
    ]
    bundle.save_measurement(
        "verification",
        {
            "passed": all(check.passed for check in checks),
            "checks": [asdict(check) for check in checks],
            "golden_images": len(golden["images"]),
            "runtime": facts["runtime"],
            "device": session.profile.name,
        },
    )
    return checks


def golden_repeats(bundle: Bundle, session: DeviceSession) -> list[Check]:
    """Run the golden images on the device: are the outputs those that the file gave before?"""
    golden = bundle.golden()
    outputs = _golden_outputs(bundle, golden, session)
    return [_repeats(bundle.precision, spec, golden, outputs) for spec in bundle.contract.outputs]


def _golden(bundle: Bundle, golden: Mapping[str, Array], session: DeviceSession) -> list[Check]:
    outputs = _golden_outputs(bundle, golden, session)
    return [
        *(_repeats(bundle.precision, spec, golden, outputs) for spec in bundle.contract.outputs),
        *(_parity(bundle.precision, spec, golden, outputs) for spec in bundle.contract.outputs),
    ]


def _golden_outputs(
    bundle: Bundle, golden: Mapping[str, Array], session: DeviceSession
) -> dict[str, Array]:
    image = bundle.contract.image
    prepared = np.concatenate([image.prepare(one) for one in golden["images"]])
    return session.predict(bundle.model_path, {image.tensor.name: prepared})


def _tensors(bundle: Bundle, facts: Mapping[str, Any]) -> Check:
    promised = {
        spec.name: spec for spec in (bundle.contract.image.tensor, *bundle.contract.outputs)
    }
    found = {fact["name"]: tensor_spec(fact) for fact in (*facts["inputs"], *facts["outputs"])}
    wrong = sorted(
        name for name in promised.keys() | found.keys() if promised.get(name) != found.get(name)
    )
    if not wrong:
        return Check("tensors match the contract", True, f"{len(found)} tensors")
    name = wrong[0]
    return Check(
        "tensors match the contract",
        False,
        f"{name}: expected {promised.get(name)}, received {found.get(name)}",
    )


def tensor_spec(fact: Mapping[str, Any]) -> TensorSpec:
    """Return the spec of a tensor as `DeviceSession.inspect` describes it."""
    return TensorSpec(
        fact["name"], tuple(fact["shape"]), fact["dtype"], fact["scale"], fact["zero_point"]
    )


def _built_in(facts: Mapping[str, Any]) -> Check:
    foreign = sorted({op["name"] for op in facts["ops"] if _is_foreign(op["name"])})
    return Check(
        "built-in operators only",
        not foreign,
        f"not built in: {', '.join(foreign)}" if foreign else f"{facts['nodes']} nodes",
    )


def _is_foreign(op: str) -> bool:
    # The runtime reports a built-in operator in capitals, any other under its own name.
    return op != op.upper() or op.startswith("CUSTOM")


def _integers(bundle: Bundle, facts: Mapping[str, Any]) -> Check:
    mixed = bundle.read_measurement("mixed_precision")
    if not mixed or not mixed["kept_float"]:
        fast_for = bundle.recipe.get("export", {}).get("fast_for", "any")
        return _integer(facts, get_scheme(bundle.precision), FAST_FLOAT.get(fast_for, frozenset()))
    kept = mixed["kept_float"]
    found = [node for node in facts["non_integer"] if node["op"] in _LAYER_OPS]
    return Check(
        "the layers that compute in float are those of mixed_precision.json",
        len(found) == len(kept),
        f"{len(found)} layers of {facts['nodes']} nodes, {len(kept)} expected: {', '.join(kept)}",
    )


def _integer(facts: Mapping[str, Any], scheme: Scheme, float_ops: Collection[str] = ()) -> Check:
    # What takes and gives floats converts them at its ends, and around operations that stay float.
    ends = _CONVERSIONS if scheme.io == "float32" or float_ops else set()
    others = [node for node in facts["non_integer"] if node["op"] not in {*ends, *float_ops}]
    return Check(
        "every node computes in integers",
        not others,
        _exceptions(facts["integer_nodes"], facts["nodes"], facts["non_integer"]),
    )


def _delegated(facts: Mapping[str, Any], scheme: Scheme) -> Check:
    delegate = facts["delegate"]
    if delegate == "none":
        return Check("delegated", True, "no delegate asked for")
    if delegate == "xnnpack" and scheme.activations == "int16":
        count = f"{facts['delegated_nodes']} of {facts['nodes']} nodes"
        return Check("delegated", True, f"{count}; xnnpack does not compute in 16-bit integers")
    # XNNPACK does not convert between uint8 and int8.
    ends = _CONVERSIONS if scheme.io == "uint8" else set()
    return Check(
        f"every node runs in {delegate}",
        all(node["op"] in ends for node in facts["undelegated"]),
        _exceptions(facts["delegated_nodes"], facts["nodes"], facts["undelegated"]),
    )


def _exceptions(count: int, total: int, listed: list[Mapping[str, Any]]) -> str:
    names = ", ".join(f"{node['op']} ({node['dtypes']})" for node in listed[:8])
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"{count} of {total} nodes" + (f"; not: {names}{more}" if listed else "")


def _repeats(
    precision: str, spec: TensorSpec, golden: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Check:
    expected, received = golden[f"expected/{spec.name}"], outputs[spec.name]
    title = f"{spec.name} repeats the golden output"
    if expected.shape != received.shape:
        return Check(title, False, f"expected shape {expected.shape}, received {received.shape}")
    if np.array_equal(expected, received):
        return Check(title, True, "bit-exact")
    difference = np.abs(expected.astype(np.float64) - received.astype(np.float64))
    if spec.scale is not None:
        steps = float(np.percentile(difference, 99))
        same = float(np.mean(difference == 0))
        detail = f"{same:.2%} equal, 99 % within {steps:g} steps of {_REPEAT_STEPS} allowed"
        return Check(title, steps <= _REPEAT_STEPS, detail)
    if precision not in _REPEAT:
        share = float(np.percentile(difference, 99)) / _span(expected)
        return Check(
            title,
            share <= _REPEAT_STEPS / _STEPS,
            f"99 % within {share:.1e} of the range, {_REPEAT_STEPS / _STEPS:.0e} allowed",
        )
    share = float(difference.max()) / _span(expected)
    return Check(
        title,
        share <= _REPEAT[precision],
        f"differs by at most {share:.1e} of the range, {_REPEAT[precision]:.0e} allowed",
    )


def _parity(
    precision: str, spec: TensorSpec, golden: Mapping[str, Array], outputs: Mapping[str, Array]
) -> Check:
    reference = golden[f"reference/{spec.name}"].astype(np.float64)
    real = spec.dequantize(outputs[spec.name]).astype(np.float64)
    title = f"{spec.name} is close to the float model"
    if reference.shape != real.shape or not np.isfinite(real).all():
        return Check(title, False, f"expected finite {reference.shape}, received {real.shape}")
    share = float(np.mean(np.abs(real - reference))) / _span(reference)
    allowed = _PARITY.get(precision, _INTEGER_PARITY)
    noise = float(np.mean((real - reference) ** 2))
    snr = 10 * np.log10(float(np.mean(reference**2)) / noise) if noise else np.inf
    return Check(
        title,
        share <= allowed,
        f"mean difference {share:.2e} of the range, {allowed:.0e} allowed; SQNR {snr:.1f} dB",
    )


def _span(values: Array) -> float:
    return max(float(values.max() - values.min()), 1e-6)
