"""Vision heads for any backbone: create one with `create_vision_head`, or by its class.

A head is imported when first used; the configurations need neither Keras nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeheads.heads.configuration import HeadConfiguration
from edgeheads.heads.factory import HEADS, create_multi_task_head, create_vision_head

if TYPE_CHECKING:
    from edgeheads.heads.base import BaseVisionHead
    from edgeheads.heads.classification import ClassificationHead
    from edgeheads.heads.dense import DenseHead
    from edgeheads.heads.depth import DepthEstimationHead
    from edgeheads.heads.detection import DetectionHead
    from edgeheads.heads.enhancement import EnhancementHead
    from edgeheads.heads.instance_segmentation import InstanceSegmentationHead
    from edgeheads.heads.keypoints import KeypointHead
    from edgeheads.heads.multi_task import MultiTaskHead
    from edgeheads.heads.normals import SurfaceNormalsHead
    from edgeheads.heads.segmentation import SegmentationHead

__all__ = [
    "HEADS",
    "BaseVisionHead",
    "ClassificationHead",
    "DenseHead",
    "DepthEstimationHead",
    "DetectionHead",
    "EnhancementHead",
    "HeadConfiguration",
    "InstanceSegmentationHead",
    "KeypointHead",
    "MultiTaskHead",
    "SegmentationHead",
    "SurfaceNormalsHead",
    "create_multi_task_head",
    "create_vision_head",
]

_HOMES = {
    "BaseVisionHead": "base",
    "DenseHead": "dense",
    **{cls: module for module, _, cls in (home.partition(":") for home in HEADS.values())},
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeheads.heads' has no attribute {name!r}")
    return getattr(import_module(f"edgeheads.heads.{_HOMES[name]}"), name)
