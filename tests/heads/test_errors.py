"""The troubleshooting cases: expected, received, and the call that fixes it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeheads.errors import EdgeheadsError
from edgeheads.heads import HEADS, create_multi_task_head, create_vision_head
from edgeheads.heads.boxes import decode_detections


@pytest.mark.parametrize(
    ("task", "options", "expected", "received", "fix"),
    [
        # A wrong option.
        ("depth", {"attention_type": "self"}, "one of multi_head, cbam, differential", "'self'",
         "create_vision_head('depth', attention_type="),
        ("cls", {"ffn_type": "swigelu"}, "one of mlp, glu, swiglu, geglu", "'swigelu'",
         "create_vision_head('classification', ffn_type='swiglu')"),
        ("seg", {"normalization_type": "group"}, "one of layer_norm", "'group'",
         "normalization_type="),
        ("seg", {"activation_type": "gelul"}, "the name of a Keras activation", "'gelul'",
         "activation_type='relu6'"),
        ("det", {"hidden_dim": 4}, "at least 8", "4", "hidden_dim=128"),
        ("det", {"dropout_rate": 1.0}, "in [0, 1)", "1.0", "dropout_rate=0.1"),
        ("seg", {"upsampling_factor": 1.5}, "a whole number", "1.5", "upsampling_factor=4"),
        ("seg", {"output_size": (0, 4)}, "(height, width)", "(0, 4)", "output_size=(224, 224)"),
        ("cls", {"pooling": "avg"}, "one of average, max", "'avg'", "pooling="),
        ("cls", {"num_classes": 1}, "at least 2", "1", "num_classes=10"),
        ("sr", {"scale": 0}, "a whole number", "0", "scale=2"),
        ("denoise", {"residual": True, "output_size": (8, 8)}, "False with", "True",
         "residual=True"),
        ("instance", {"mask_size": (0, 28)}, "(rows, columns), at least (1, 1)", "(0, 28)",
         "mask_size=(28, 28)"),
        ("instance", {"bbox_dims": 5}, "4", "5", "bbox_dims=4"),
        ("pose", {"num_keypoints": 0}, "at least 1", "0", "num_keypoints=17"),
        ("pose", {"prior_probability": 1.0}, "in (0, 1)", "1.0", "prior_probability=0.01"),
        # An anchor count that does not fit.
        ("det", {"num_anchors": 3}, "9, for 3 anchor_scales times 3 anchor_ratios", "3",
         "num_anchors=3, anchor_scales=(1.0,), anchor_ratios=(0.5, 1.0, 2.0)"),
        # A depth range that is none.
        ("depth", {"min_depth": 10.0, "max_depth": 10.0}, "above min_depth (10.0 metres)", "10.0",
         "create_vision_head('depth', min_depth=0.1, max_depth=100.0)"),
        ("depth", {"min_depth": 0.0}, "above 0 metres", "0.0", "min_depth=0.1"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused(task, options, expected, received, fix):
    with pytest.raises(EdgeheadsError) as caught:
        create_vision_head(task, **options)
    text = str(caught.value)
    assert f"{next(iter(options))} must be" in text or f"{list(options)[-1]} must be" in text
    assert f"must be {expected}" in text
    assert f"received {received}" in text
    assert "for example create_vision_head(" in text
    assert fix in text.partition("for example")[2]


@pytest.mark.parametrize("task", HEADS)
def test_an_unknown_option_lists_close_names(task):
    with pytest.raises(
        EdgeheadsError, match=r"unknown option 'hiden_dim'; did you mean hidden_dim"
    ):
        create_vision_head(task, hiden_dim=32)


def test_a_backbone_of_other_channels_is_refused():
    head = create_vision_head("depth", name="mine", hidden_dim=8)
    head.build((None, 4, 4, 32))
    with pytest.raises(EdgeheadsError) as caught:
        head(np.zeros((1, 4, 4, 48), "float32"))
    assert str(caught.value) == (
        "DepthEstimationHead 'mine' was built for inputs with [32] channels, received [48]; "
        "make a new head for this backbone: create_vision_head('depth', ...)"
    )


def test_instance_masks_of_another_input_size_are_refused_with_both_anchor_counts():
    head = create_vision_head("instance", hidden_dim=8)
    head.build((None, 4, 4, 8))
    with pytest.raises(EdgeheadsError, match="built for 144 anchors, received maps with 324"):
        head(np.zeros((1, 6, 6, 8), "float32"))


def test_decoding_with_other_anchors_names_the_call_that_makes_them():
    head = create_vision_head("detection", hidden_dim=8, num_classes=2)
    outputs = head(np.zeros((1, 4, 4, 8), "float32"))
    rows = [np.array(outputs[key][0]) for key in ("classifications", "regressions")]
    with pytest.raises(EdgeheadsError, match=r"144 rows for 225 anchors.*head\.anchors\.boxes"):
        decode_detections(*rows, head.anchors.boxes([(5, 5)]))
    decode_detections(*rows, head.anchors.boxes([(4, 4)]))


def test_attention_over_positions_says_that_it_needs_them():
    from edgeheads.heads.layers.inputs import known_size

    class Unknown:
        shape = (None, None, 4, 8)

    with pytest.raises(EdgeheadsError, match=r"needs the map's height.*\(None, None, 4, 8\)"):
        known_size(Unknown(), "attention over positions")


@pytest.mark.parametrize("configs", [{}, {"seg": {}, "segmentation": {}}, {"multi": {}}])
def test_a_multi_task_head_needs_tasks(configs):
    with pytest.raises(EdgeheadsError, match=r"each one once.*create_multi_task_head\(\{"):
        create_multi_task_head(configs)


def test_a_residual_needs_the_image():
    head = create_vision_head("denoise", residual=True, hidden_dim=8)
    with pytest.raises(
        EdgeheadsError, match=r"must be the image.*\(1, 8, 8, 5\).*\[image, \*maps\]"
    ):
        head([np.zeros((1, 8, 8, 5), "float32"), np.zeros((1, 4, 4, 8), "float32")])
