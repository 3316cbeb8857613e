"""The limits that a target's rules can set on an operation: one function each.

Each returns why the operation breaks the limit, or None where it keeps it.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeheads.targets.graph import Operation, Tensor

__all__ = ["LIMITS"]


def _no_fused_activation(op: Operation, wanted: int) -> str | None:
    fused = op.options.get("fusedActivationFunction", 0)
    return f"it has a fused activation (number {fused} of the schema)" if fused else None


def _zero_padding_constants(op: Operation, wanted: int) -> str | None:
    constants = [tensor for tensor in op.inputs if tensor.value is not None]
    if not constants:
        return None
    if len(op.inputs) != 2:
        return f"it joins a constant with {len(op.inputs) - 1} tensors; 1 is allowed"
    if any(one.value is not None and one.value.any() for one in constants):
        return "it joins a constant that is not all zeros"
    return None


def _constant_weights(op: Operation, wanted: int) -> str | None:
    # TRANSPOSE_CONV reads the output's shape and the weights first, the others the tensor.
    weights = op.inputs[:2] if op.name == "TRANSPOSE_CONV" else op.inputs[1:]
    flowing = [one for one in weights if not one.is_constant]
    return f"{len(flowing)} of its weights are computed, not constant" if flowing else None


def _same_dilation(op: Operation, wanted: int) -> str | None:
    x, y = op.options.get("dilationWFactor", 1), op.options.get("dilationHFactor", 1)
    return None if x == y else f"its dilation is {x} in x and {y} in y; they must be the same"


def _default_weights_format(op: Operation, wanted: int) -> str | None:
    form = op.options.get("weightsFormat", 0)
    return f"its weights are in the shuffled format {form}, not the default" if form else None


def _max_output_rank(op: Operation, wanted: int) -> str | None:
    return _rank(op.outputs[0], "output", wanted)


def _max_input_rank(op: Operation, wanted: int) -> str | None:
    return _rank(op.inputs[0], "input", wanted)


def _rank(tensor: Tensor, what: str, wanted: int) -> str | None:
    if tensor.rank <= wanted:
        return None
    return f"its {what} {list(tensor.shape)} has {tensor.rank} dimensions; {wanted} are allowed"


def _max_elements(op: Operation, wanted: int) -> str | None:
    count = 1
    for size in op.inputs[0].shape:
        count *= size
    return f"its input has {count} elements; {wanted} are allowed" if count > wanted else None


def _keeps_batch(op: Operation, wanted: int) -> str | None:
    axes = _axes(op)
    if axes is None:
        return "its axes are computed, not constant"
    if 0 not in axes:
        return None
    verb = {"PAD": "pads", "SPLIT": "splits", "PACK": "packs"}.get(op.name, "reduces")
    return f"it {verb} the batch dimension"


def _depth_multiple(op: Operation, wanted: int) -> str | None:
    depth = op.inputs[0].shape[-1]
    if len(op.inputs[0].shape) - 1 not in (_axes(op) or ()) or depth % wanted == 0:
        return None
    return f"it reduces {depth} channels; only a multiple of {wanted} is allowed"


def _axes(op: Operation) -> set[int] | None:
    """Return the axes that an operation changes, counted from 0; None if they are computed."""
    if op.name == "PACK":
        return {op.options["axis"] % len(op.outputs[0].shape)}
    constant, data = (op.inputs[0], op.inputs[1]) if op.name == "SPLIT" else op.inputs[1::-1]
    if constant.value is None:
        return None
    if op.name == "PAD":
        amounts = constant.value.reshape(-1, 2)
        return {axis for axis, (before, after) in enumerate(amounts) if before or after}
    return {int(axis) % len(data.shape) for axis in constant.value.ravel()}


def _one_dimensional_alpha(op: Operation, wanted: int) -> str | None:
    shape = op.inputs[1].shape
    if all(size == 1 for size in shape[:-1]):
        return None
    return f"its slopes have the shape {list(shape)}; only the channels may have their own"


def _unit_strides(op: Operation, wanted: int) -> str | None:
    strides = op.inputs[3].value if len(op.inputs) > 3 else None
    if strides is None:
        return "its strides are computed, not constant"
    if (strides != 1).any():
        return f"its strides are {[int(one) for one in strides]}; only 1 is allowed"
    masks = {name: op.options.get(name, 0) for name in ("ellipsisMask", "newAxisMask")}
    used = [name for name, mask in masks.items() if mask]
    return f"it uses {' and '.join(used)}" if used else None


LIMITS: dict[str, Callable[[Operation, int], str | None]] = {
    "constant_weights": _constant_weights,
    "default_weights_format": _default_weights_format,
    "depth_multiple": _depth_multiple,
    "keeps_batch": _keeps_batch,
    "max_elements": _max_elements,
    "max_input_rank": _max_input_rank,
    "max_output_rank": _max_output_rank,
    "no_fused_activation": _no_fused_activation,
    "one_dimensional_alpha": _one_dimensional_alpha,
    "same_dilation": _same_dilation,
    "unit_strides": _unit_strides,
    "zero_padding_constants": _zero_padding_constants,
}
