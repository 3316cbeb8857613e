"""Networks of KerasHub as data: class, architecture, input, and published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeheads.backbones.base import InputScaling
from edgeheads.backbones.layers import round_channels

__all__ = ["IMAGENET_SCALING", "NETWORKS", "HubNetwork"]

IMAGENET_SCALING = InputScaling.standardized(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class HubNetwork:
    """One network of KerasHub, and what makes a backbone of it.

    Attributes:
        hub_class: its name in `keras_hub.models`.
        parameters: of the architecture, as the class takes them.
        features: where the levels are; see `edgeheads.backbones.hub`.
        multiple: what height and width must be multiples of; the patch size of tokens.
        scaling: what the published weights were trained on.
        imagenet: the preset that "imagenet" stands for, if there is one.
        square: the class computes for square images only, whatever the network could do.
        shape_argument: what the class calls (height, width, 3).
    """

    hub_class: str
    parameters: Mapping[str, Any]
    features: Literal["blocks", "pyramid", "stages", "strides", "tokens"]
    multiple: int = 1
    scaling: InputScaling = IMAGENET_SCALING
    imagenet: str | None = None
    square: bool = False
    shape_argument: str = field(default="image_shape", kw_only=True)


def _efficientnet_lite(width: float, depth: float, imagenet: str | None = None) -> HubNetwork:
    """EfficientNet (Tan & Le 2019) without squeeze-and-excitation, with ReLU6.

    Unlike in EfficientNet, the stem and the first and last stages do not grow with the size
    (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite").
    """

    def channels(count: int) -> int:
        rounded = round_channels(count * width)
        return rounded + 8 if rounded < 0.9 * count * width else rounded

    outputs = [channels(count) for count in (16, 24, 40, 80, 112, 192, 320)]
    repeats = [-(-count * round(10 * depth) // 10) for count in (2, 2, 3, 3, 4)]
    return HubNetwork(
        "EfficientNetBackbone",
        {
            "stackwise_width_coefficients": [1.0] * 7,
            "stackwise_depth_coefficients": [1.0] * 7,
            "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
            "stackwise_num_repeats": [1, *repeats, 1],
            "stackwise_input_filters": [32, *outputs[:-1]],
            "stackwise_output_filters": outputs,
            "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
            "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
            "stackwise_squeeze_and_excite_ratios": [0] * 7,
            "stackwise_block_types": ["v1"] * 7,
            "min_depth": None,
            "use_depth_divisor_as_min_depth": True,
            "cap_round_filter_decrease": True,
            "activation": "relu6",
            "dropout": 0,
        },
        "blocks",
        imagenet=imagenet,
        shape_argument="input_shape",
    )


def _dinov2(layers: int, dim: int, heads: int, registers: int = 0) -> HubNetwork:
    """Oquab et al. 2023; with registers: Darcet et al. 2023. Patches of 14 pixels."""
    return HubNetwork(
        "DINOV2Backbone",
        {
            "patch_size": 14,
            "num_layers": layers,
            "hidden_dim": dim,
            "num_heads": heads,
            "intermediate_dim": 4 * dim,
            "num_register_tokens": registers,
            # The size of the published position embeddings, which are resized to the input.
            "position_embedding_shape": (518, 518, 3),
            # With registers they are resized as the authors do it there.
            "antialias_in_interpolation": registers > 0,
        },
        "tokens",
        14,
        square=True,
    )


def _dinov3(layers: int, dim: int, heads: int, *, gated: bool = False) -> HubNetwork:
    """Siméoni et al. 2025. Patches of 16 pixels, four registers, rotary positions."""
    return HubNetwork(
        "DINOV3Backbone",
        {
            "patch_size": 16,
            "num_layers": layers,
            "hidden_dim": dim,
            "num_heads": heads,
            "intermediate_dim": 4 * dim,
            "num_register_tokens": 4,
            "use_gated_mlp": gated,
            "hidden_activation": "silu" if gated else "gelu",
            "use_key_bias": False,
        },
        "tokens",
        16,
        square=True,
    )


def _darknet53(stage: str, imagenet: str, **ratios: Any) -> HubNetwork:
    """Redmon & Farhadi 2018 (YOLOv3), table 1; as CSP: Bochkovskiy et al. 2020 (YOLOv4)."""
    return HubNetwork(
        "CSPNetBackbone",
        {
            "stem_filters": 32,
            "stem_kernel_size": 3,
            "stem_strides": 1,
            "stem_padding": "same",
            "stackwise_depth": [1, 2, 8, 8, 4],
            "stackwise_strides": [2, 2, 2, 2, 2],
            "stackwise_num_filters": [64, 128, 256, 512, 1024],
            "stage_type": stage,
            "block_type": "dark_block",
            **ratios,
        },
        "pyramid",
        32,
        imagenet=imagenet,
    )


def _csp_resnet(imagenet: str, width: int, **ratios: Any) -> HubNetwork:
    """Wang et al. 2020, "CSPNet: A New Backbone that can Enhance Learning Capability of CNN"."""
    return HubNetwork(
        "CSPNetBackbone",
        {
            "stem_filters": 64,
            "stem_kernel_size": 7,
            "stem_strides": 4,
            "stem_pooling": "max",
            "stackwise_depth": [3, 3, 5, 2],
            "stackwise_strides": [1, 2, 2, 2],
            "stackwise_num_filters": [width * 2**stage for stage in range(4)],
            "stage_type": "csp",
            "block_type": "bottleneck_block",
            "cross_linear": True,
            **ratios,
        },
        "pyramid",
        32,
        imagenet=imagenet,
    )


def _hgnet_v2(
    stem: tuple[int, int],
    middle: tuple[int, int, int, int],
    outputs: tuple[int, int, int, int],
    depths: tuple[int, int, int, int],
    layers: int,
    imagenet: str | None = None,
) -> HubNetwork:
    """The network of PaddlePaddle's RT-DETR (Zhao et al. 2023), in its second version."""
    inputs = (stem[1], *outputs[:-1])
    return HubNetwork(
        "HGNetV2Backbone",
        {
            "stem_channels": [3, *stem],
            "embedding_size": stem[1],
            "hidden_sizes": list(outputs),
            "depths": list(depths),
            "hidden_act": "relu",
            # B0 to B3, the mobile ones, have a scale and a bias after each activation.
            "use_learnable_affine_block": layers < 6,
            "stackwise_stage_filters": [
                [inputs[i], middle[i], outputs[i], depths[i], layers, (3, 3, 5, 5)[i]]
                for i in range(4)
            ],
            "apply_downsample": [False, True, True, True],
            "use_lightweight_conv_block": [False, False, True, True],
        },
        "stages",
        32,
        imagenet=imagenet,
    )


_HG_SMALL, _HG_LARGE = (64, 256, 512, 1024), (128, 512, 1024, 2048)

NETWORKS: dict[str, HubNetwork] = {
    "efficientnet_lite0": _efficientnet_lite(1.0, 1.0, "efficientnet_lite0_ra_imagenet"),
    "efficientnet_lite1": _efficientnet_lite(1.0, 1.1),
    "efficientnet_lite2": _efficientnet_lite(1.1, 1.2),
    "efficientnet_lite3": _efficientnet_lite(1.2, 1.4),
    "efficientnet_lite4": _efficientnet_lite(1.4, 1.8),
    "dinov2_small": _dinov2(12, 384, 6),
    "dinov2_base": _dinov2(12, 768, 12),
    "dinov2_large": _dinov2(24, 1024, 16),
    "dinov2_with_registers_small": _dinov2(12, 384, 6, registers=4),
    "dinov2_with_registers_base": _dinov2(12, 768, 12, registers=4),
    "dinov2_with_registers_large": _dinov2(24, 1024, 16, registers=4),
    "dinov3_small": _dinov3(12, 384, 6),
    "dinov3_small_plus": _dinov3(12, 384, 6, gated=True),
    "dinov3_base": _dinov3(12, 768, 12),
    "dinov3_large": _dinov3(24, 1024, 16),
    "darknet53": _darknet53("dark", "darknet_53_imagenet", bottle_ratio=[0.5]),
    "csp_darknet53": _darknet53(
        "csp",
        "csp_darknet_53_ra_imagenet",
        bottle_ratio=[0.5, 1.0],
        block_ratio=[1.0, 0.5],
        expand_ratio=[2.0, 1.0],
        down_growth=True,
    ),
    "csp_resnet50": _csp_resnet(
        "csp_resnet_50_ra_imagenet", 128, bottle_ratio=[0.5], expand_ratio=[2.0]
    ),
    "csp_resnext50": _csp_resnet(
        "csp_resnext_50_ra_imagenet", 256, bottle_ratio=[1.0], block_ratio=[0.5], groups=32
    ),
    "hgnetv2_b0": _hgnet_v2((16, 16), (16, 32, 64, 128), _HG_SMALL, (1, 1, 2, 1), 3),
    "hgnetv2_b1": _hgnet_v2((24, 32), (32, 48, 96, 192), _HG_SMALL, (1, 1, 2, 1), 3),
    "hgnetv2_b2": _hgnet_v2((24, 32), (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4),
    "hgnetv2_b3": _hgnet_v2((24, 32), (32, 64, 128, 256), _HG_LARGE, (1, 1, 3, 1), 5),
    "hgnetv2_b4": _hgnet_v2(
        (32, 48),
        (48, 96, 192, 384),
        _HG_LARGE,
        (1, 1, 3, 1),
        6,
        "hgnetv2_b4_ssld_stage2_ft_in1k",
    ),
    "hgnetv2_b5": _hgnet_v2(
        (32, 64),
        (64, 128, 256, 512),
        _HG_LARGE,
        (1, 2, 5, 2),
        6,
        "hgnetv2_b5_ssld_stage2_ft_in1k",
    ),
    "hgnetv2_b6": _hgnet_v2(
        (48, 96),
        (96, 192, 384, 768),
        (192, 512, 1024, 2048),
        (2, 3, 6, 3),
        6,
        "hgnetv2_b6_ssld_stage2_ft_in1k",
    ),
}
