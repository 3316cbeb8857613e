"""The efficient preset is legal on every int8 target, up to its edge outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from head_cases import TASKS, flat_graph

from edgeheads.heads import HeadConfiguration, create_vision_head
from edgeheads.tasks.task_type import TaskType

_LEGAL = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Activation",
    "UpSampling2D", "Add", "Multiply", "GlobalAveragePooling2D", "Dense", "Reshape", "Concatenate",
}  # fmt: skip
_LEGAL_ACTIVATIONS = {"linear", "sigmoid"}
_INTEGER_OPERATORS = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "MEAN", "LOGISTIC", "RELU",
    "RELU6", "RELU_0_TO_1", "MINIMUM", "MAXIMUM", "TANH", "RESIZE_BILINEAR", "RESHAPE",
    "CONCATENATION", "PAD", "QUANTIZE",
}  # fmt: skip


def _edge_graph(task: TaskType) -> keras.Model:
    config = {**HeadConfiguration.get_efficient_config(task), "hidden_dim": 16}
    if task is TaskType.MULTI_TASK:
        for inner in config["task_configs"].values():
            inner["hidden_dim"] = 16
    head = create_vision_head(task, name="head", **config)
    x = image = keras.Input((64, 96, 3))
    maps = []
    for channels in (8, 8, 12, 16):
        x = keras.layers.Conv2D(channels, 3, 2, "same", activation="relu6")(x)
        maps.append(x)
    graph = keras.Model(image, head.connect(maps[1:]))
    outputs = {key: graph.get_layer(name).output for key, name in head.edge_outputs().items()}
    return keras.Model(image, outputs)


@pytest.mark.parametrize("task", TASKS, ids=[task.value for task in TASKS])
def test_the_graph_is_made_of_legal_layers(task):
    graph = _edge_graph(task)
    for layer in graph.layers:
        assert type(layer).__name__ in _LEGAL, layer.name
        if isinstance(layer, keras.layers.Activation):
            assert layer.activation.__name__ in _LEGAL_ACTIVATIONS, layer.name
        if isinstance(layer, keras.layers.BatchNormalization):
            # Batch norm folds only into the convolution in front of it.
            (node,) = layer._inbound_nodes
            before = node.input_tensors[0]._keras_history.operation
            assert isinstance(before, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
            assert not before.use_bias


@pytest.mark.parametrize("task", [TaskType.DETECTION, TaskType.INSTANCE_SEGMENTATION])
def test_a_concatenation_joins_the_predictions_of_one_convolution(task):
    joined = [
        layer
        for layer in flat_graph(task, "efficient", "list").layers
        if isinstance(layer, keras.layers.Concatenate)
    ]
    assert len(joined) == (2 if task is TaskType.DETECTION else 3)
    for layer in joined:
        sources = set()
        for reshaped in layer._inbound_nodes[0].input_tensors:
            reshape = reshaped._keras_history
            node = reshape.operation._inbound_nodes[reshape.node_index]
            sources.add(node.input_tensors[0]._keras_history.operation)
        assert len(sources) == 1


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converter is TensorFlow's")
@pytest.mark.parametrize("task", TASKS, ids=[task.value for task in TASKS])
def test_the_graph_converts_to_integers_throughout(task, tmp_path):
    import tensorflow as tf

    graph = _edge_graph(task)
    archive = keras.export.ExportArchive()
    archive.track(graph)
    signature = [tf.TensorSpec((1, 64, 96, 3), tf.float32)]
    archive.add_endpoint("serve", lambda image: graph(image, training=False), signature)
    archive.write_out(tmp_path, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    rng = np.random.default_rng(0)

    def samples():
        for _ in range(3):
            yield [rng.uniform(size=(1, 64, 96, 3)).astype("float32")]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    operators = {op["op_name"] for op in interpreter._get_ops_details()} - {"DELEGATE"}
    assert operators <= _INTEGER_OPERATORS
    assert {one["dtype"] for one in interpreter.get_output_details()} == {np.int8}
    assert len(interpreter.get_output_details()) == len(graph.outputs)
