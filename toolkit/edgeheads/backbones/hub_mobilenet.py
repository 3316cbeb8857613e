"""MobileNetV4 and V5 as data: universal inverted bottlenecks, from KerasHub."""

from __future__ import annotations

from typing import Any, NamedTuple

from edgeheads.backbones.base import InputScaling
from edgeheads.backbones.hub_networks import IMAGENET_SCALING, HubNetwork

__all__ = ["MOBILENETS"]


class _Block(NamedTuple):
    """A block of MobileNetV4 or V5, by the names of `MobileNetV5Backbone`'s arguments."""

    block_types: str
    num_filters: int
    strides: int = 1
    exp_ratios: float = 0.0
    dw_start_kernel_sizes: int = 0
    dw_kernel_sizes: int = 0
    exp_kernel_sizes: int = 0
    num_heads: int = 0
    key_dims: int = 0
    kv_strides: int = 0


def _uib(start: int, middle: int, expansion: int, channels: int, stride: int = 1) -> _Block:
    """Universal inverted bottleneck: up to two depthwise kernels, each 0 where it is left out."""
    return _Block("uir", channels, stride, expansion, start, middle)


def _fused(expansion: int, channels: int) -> _Block:
    """Fused inverted bottleneck: a 3x3 convolution at stride 2, and a 1x1."""
    return _Block("er", channels, 2, expansion, exp_kernel_sizes=3)


def _mqa(heads: int, dim: int, channels: int, kv_stride: int = 1) -> _Block:
    """Multi-query attention: all heads share one set of keys and values."""
    return _Block("mqa", channels, num_heads=heads, key_dims=dim, kv_strides=kv_stride)


def _universal(
    stages: list[list[_Block]], activation: str, scaling: InputScaling, **parameters: Any
) -> HubNetwork:
    """A network of such blocks, one list per stride: 4, 8, 16, 32."""
    stackwise: dict[str, Any] = {
        f"stackwise_{name}": [[getattr(block, name) for block in stage] for stage in stages]
        for name in _Block._fields
    }
    return HubNetwork(
        "MobileNetV5Backbone",
        {
            **stackwise,
            "stackwise_num_blocks": [len(stage) for stage in stages],
            "stackwise_act_layers": [[activation] * len(stage) for stage in stages],
            "stackwise_se_ratios": [[0.0] * len(stage) for stage in stages],
            "stackwise_dw_end_kernel_sizes": [[0] * len(stage) for stage in stages],
            "stackwise_pw_kernel_sizes": [
                [1 if block.block_types == "er" else 0 for block in stage] for stage in stages
            ],
            "stackwise_value_dims": stackwise["stackwise_key_dims"],
            "stackwise_use_cpe": [[False] * len(stage) for stage in stages],
            "act_layer": activation,
            # The adapter that makes one map of the last two stages: a head does that.
            "use_msfa": False,
            **parameters,
        },
        "strides",
        scaling=scaling,
    )


def _mobilenet_v4(stages: list[list[_Block]]) -> HubNetwork:
    return _universal(
        stages, "relu", IMAGENET_SCALING, norm_layer="batch_norm", stem_size=32, stem_bias=False
    )


# Qin et al. 2024, "MobileNetV4: Universal Models for the Mobile Ecosystem", appendix. KerasHub
# has no class of that name; these are its blocks as MobileNetV5Backbone has them.
_MOBILENET_V4_CONV_SMALL = _mobilenet_v4(
    [
        [_fused(1, 32)],
        [_fused(3, 64)],
        [_uib(5, 5, 3, 96, 2), *[_uib(0, 3, 2, 96)] * 4, _uib(3, 0, 4, 96)],
        [
            _uib(3, 3, 6, 128, 2),
            _uib(5, 5, 4, 128),
            _uib(0, 5, 4, 128),
            _uib(0, 5, 3, 128),
            *[_uib(0, 3, 4, 128)] * 2,
        ],
    ]
)

_MOBILENET_V4_CONV_MEDIUM = _mobilenet_v4(
    [
        [_fused(4, 48)],
        [_uib(3, 5, 4, 80, 2), _uib(3, 3, 2, 80)],
        [
            _uib(3, 5, 6, 160, 2),
            *[_uib(3, 3, 4, 160)] * 2,
            _uib(3, 5, 4, 160),
            _uib(3, 3, 4, 160),
            _uib(3, 0, 4, 160),
            _uib(0, 0, 2, 160),
            _uib(3, 0, 4, 160),
        ],
        [
            _uib(5, 5, 6, 256, 2),
            _uib(5, 5, 4, 256),
            *[_uib(3, 5, 4, 256)] * 2,
            _uib(0, 0, 4, 256),
            _uib(3, 0, 4, 256),
            _uib(3, 5, 2, 256),
            _uib(5, 5, 4, 256),
            *[_uib(0, 0, 4, 256)] * 2,
            _uib(5, 0, 2, 256),
        ],
    ]
)

# The vision encoder of Gemma 3n, trained on pixels in [0, 1].
_MOBILENET_V5_300M = _universal(
    [
        [_fused(4, 128), *[_fused(4, 128)._replace(strides=1)] * 2],
        [
            _uib(3, 5, 6, 256, 2),
            *[_uib(5, 0, 4, 256), _uib(3, 0, 4, 256)] * 2,
        ],
        [
            _uib(5, 5, 6, 640, 2),
            *[_uib(5, 0, 4, 640)] * 7,
            _uib(0, 0, 1, 640),
            *[_mqa(12, 64, 640, kv_stride=2), _uib(0, 0, 2, 640)] * 14,
        ],
        [_uib(5, 5, 6, 1280, 2), *[_mqa(16, 96, 1280), _uib(0, 0, 2, 1280)] * 19],
    ],
    "gelu",
    InputScaling.uniform(1 / 255),
    norm_layer="rms_norm",
    stem_size=64,
    layer_scale_init_value=1e-5,
)

MOBILENETS = {
    "mobilenet_v4_conv_small": _MOBILENET_V4_CONV_SMALL,
    "mobilenet_v4_conv_medium": _MOBILENET_V4_CONV_MEDIUM,
    "mobilenet_v5_300m": _MOBILENET_V5_300M,
}
