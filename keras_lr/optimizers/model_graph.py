"""The graph in which a model computes: a vertex for each call of a layer or operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_lr._keras.layers import functional_graph, nodes_of, producing_node
from keras_lr.optimizers.block_names import heads_by_name
from keras_lr.optimizers.model_parts import Part, expanded_layers

__all__ = ["ModelGraph"]


class ModelGraph:
    """The vertices of a model in the order of computation, nested models included.

    The layers of a subclassed model, whose graph is unknown, follow each other as its attributes
    were set.

    Args:
        model: A built model.
        parts: The parts of it that matter.

    Attributes:
        part_of: For each vertex, the index of its part; None for a vertex without one. A part
            counts at its first use only, if it is used again on what it computed.
        inputs: For each vertex, the vertices that it is computed from.
        kinds: For each vertex, the class name of its layer or operation.
        before: For each vertex, all vertices that lead to it, as the bits of an integer.
        sources: For each vertex, the vertices with a part that lead to it through vertices
            without a part.
    """

    def __init__(self, model: Any, parts: Sequence[Part]) -> None:
        self.part_of: list[int | None] = []
        self.inputs: list[set[int]] = []
        self.kinds: list[str] = []
        self._place = {id(part.layer): place for place, part in enumerate(parts)}
        self._expand(model, set())
        self._drop_later_uses()
        self._connect()

    def _vertex(self, layer: Any, inputs: set[int]) -> set[int]:
        self.part_of.append(self._place.get(id(layer)))
        self.inputs.append(inputs)
        self.kinds.append(type(layer).__name__)
        return {len(self.part_of) - 1}

    def _expand(self, layer: Any, inputs: set[int]) -> list[set[int]]:
        """Add the vertices of a layer that is called on the outputs of others.

        Returns:
            For each output, the vertices that it comes from; one entry if all are the same.
        """
        inner = expanded_layers(layer)
        if inner is None:
            return [self._vertex(layer, inputs)]
        if id(layer) in self._place:  # weights of its own
            inputs = self._vertex(layer, inputs)
        graph = functional_graph(layer)
        if graph is not None:
            return self._expand_graph(graph, inputs)
        heads = heads_by_name(layer, inner)  # parallel: all of them have the same input
        for each in inner[: len(inner) - len(heads)]:
            inputs = set().union(*self._expand(each, inputs))
        ends = [vertices for each in heads for vertices in self._expand(each, inputs)]
        return [set().union(*ends) if ends else inputs]

    def _expand_graph(self, graph: Any, inputs: set[int]) -> list[set[int]]:
        outputs: dict[int, list[set[int]]] = {}

        def vertices_of(tensor: Any) -> set[int]:
            node, output = producing_node(tensor)
            found = outputs.get(id(node), [inputs])
            return found[output] if len(found) > 1 else found[0]

        for node in nodes_of(graph):
            given = [vertices_of(tensor) for tensor in node.input_tensors]
            sources = set().union(*given) if given else inputs
            operation = node.operation
            if isinstance(operation, keras.layers.Layer):
                outputs[id(node)] = self._expand(operation, sources)
            else:
                outputs[id(node)] = [self._vertex(operation, sources)]
        return [vertices_of(tensor) for tensor in graph.outputs]

    def _drop_later_uses(self) -> None:
        self.before: list[int] = []
        for vertex, inputs in enumerate(self.inputs):
            bits = 0
            for each in inputs:
                bits |= self.before[each] | 1 << each
            self.before.append(bits)
            place = self.part_of[vertex]
            if place is not None and any(
                self.part_of[i] == place and bits >> i & 1 for i in range(vertex)
            ):
                self.part_of[vertex] = None

    def _connect(self) -> None:
        self.sources: list[set[int]] = []
        leading: list[set[int]] = []
        for vertex, inputs in enumerate(self.inputs):
            sources = set().union(*(leading[each] for each in inputs))
            self.sources.append(sources)
            leading.append(sources if self.part_of[vertex] is None else {vertex})
