"""Position-wise feed-forward branches."""

from __future__ import annotations

import keras

from edgeheads.errors import unknown_name
from edgeheads.heads.layers.conv import pointwise
from edgeheads.heads.layers.norm import activate, normalize
from edgeheads.heads.layers.part import Part, Tensor, prefixed

__all__ = ["FFN_TYPES", "feed_forward"]

# type -> activation of the gate; None: no gate.
_GATES = {"mlp": None, "glu": "sigmoid", "swiglu": "silu", "geglu": "gelu"}

FFN_TYPES = tuple(_GATES)


def feed_forward(
    part: Part,
    x: Tensor,
    kind: str,
    name: str,
    *,
    expansion: int,
    normalization: str,
    activation: str,
    dropout: float,
) -> Tensor:
    """Return x + FFN(norm(x)), with 1x1 convolutions as the position-wise layers.

    "mlp" is Vaswani et al. 2017; the gated forms are Shazeer 2020, "GLU Variants Improve
    Transformer": glu gates with a sigmoid, swiglu with SiLU, geglu with GELU.

    With batch norm, the normalizations follow the convolutions instead of preceding them: there
    they fold into the convolution's weights, while one in front of it would stay in the converted
    graph as a multiplication and an addition.
    """
    if kind not in _GATES:
        raise unknown_name("ffn_type", kind, FFN_TYPES)
    part = prefixed(part, name)
    channels = x.shape[-1]
    folds = normalization == "batch_norm"

    def project(x: Tensor, width: int, name: str) -> Tensor:
        if folds:
            return pointwise(part, x, width, name, normalization=normalization)
        return part(keras.layers.Conv2D, name, filters=width, kernel_size=1)(x)

    y = x if folds else normalize(part, x, normalization, "norm")
    hidden = project(y, channels * expansion, "expand")
    gate = _GATES[kind]
    if gate is None:
        hidden = activate(part, hidden, activation, "act")
    else:
        gates = activate(part, project(y, channels * expansion, "gate"), gate, "gate_act")
        hidden = part(keras.layers.Multiply, "gated")([hidden, gates])
    y = project(hidden, channels, "contract")
    if dropout:
        y = part(keras.layers.Dropout, "dropout", rate=dropout)(y)
    return part(keras.layers.Add, "add")([x, y])
