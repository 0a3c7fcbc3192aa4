"""Whether a model gives logits or probabilities: a loss that is chosen by name needs to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["gives_logits"]

LINEAR = (None, "linear")
# Layers and operations of Keras whose output is in the range of their input.
PASSING = {
    "AlphaDropout",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "Cast",
    "CenterCrop",
    "Concatenate",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Dropout",
    "ExpandDims",
    "Flatten",
    "GetItem",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "Identity",
    "Mean",
    "Permute",
    "RepeatVector",
    "Reshape",
    "Resizing",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "Squeeze",
    "Transpose",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
}
BOUNDED = {"HardSigmoid", "Sigmoid", "Softmax"}


def gives_logits(model: Any) -> bool | None:
    """Whether the output of the model has no softmax or sigmoid; None if its layers do not say."""
    return _combined(_layer(model, [None], len(getattr(model, "outputs", None) or [1])))


def _layer(layer: Any, given: Sequence[bool | None], outputs: int = 1) -> list[bool | None]:
    """For each output of a layer, model or operation whether it is logits.

    Args:
        layer: It.
        given: The same for its inputs.
        outputs: How many outputs it has.
    """
    import keras

    from keras_lr._keras.layers import functional_graph

    if isinstance(layer, keras.Model):
        graph = functional_graph(layer)
        if graph is not None:
            return _graph(graph, given)
        found = list(given)  # subclassed: its layers in the order of its attributes
        for each in layer.layers:
            found = _layer(each, [_combined(found)])
        return found
    name = type(layer).__name__
    activation = getattr(layer, "activation", "none")
    if name == "TimeDistributed":
        return _layer(layer.layer, given, outputs)
    if name in PASSING or (name == "Activation" and _is_linear(activation)):
        return [_combined(given)] * outputs
    if name in BOUNDED:
        return [False] * outputs
    if name in ("Add", "Subtract"):  # of logits, as in a wide and deep model
        return [_combined(given) or None] * outputs
    return [None if activation == "none" else _is_linear(activation)] * outputs


def _graph(graph: Any, given: Sequence[bool | None]) -> list[bool | None]:
    from keras_lr._keras.layers import nodes_of, producing_node

    known: dict[int, list[bool | None]] = {}
    inputs = {id(tensor): place for place, tensor in enumerate(graph.inputs)}

    def of(tensor: Any) -> bool | None:
        if id(tensor) in inputs:
            place = inputs[id(tensor)]
            return given[place] if len(given) > place else _combined(given)
        node, output = producing_node(tensor)
        return known[id(node)][output] if id(node) in known else None

    for node in nodes_of(graph):
        sources = [of(tensor) for tensor in node.input_tensors]
        count = max(1, len(node.output_tensors))
        found = _layer(node.operation, sources, count)
        known[id(node)] = found if len(found) == count else [_combined(found)] * count
    return [of(tensor) for tensor in graph.outputs]


def _is_linear(activation: Any) -> bool:
    return getattr(activation, "__name__", activation) in LINEAR


def _combined(found: Iterable[bool | None]) -> bool | None:
    """The common value; None if they differ."""
    values = set(found)
    return values.pop() if len(values) == 1 else None
