"""Layers: those inside another one, their own variables, and the graph of a functional model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = [
    "all_layers",
    "direct_layers",
    "functional_graph",
    "inner_layers",
    "nodes_of",
    "own_variables",
    "producer",
    "producing_node",
]


def all_layers(layer: Any) -> list[Any]:
    """A layer or a model and all layers inside it, at any depth."""
    return list(layer._flatten_layers())


def inner_layers(layer: Any) -> list[Any]:
    """All layers inside a layer or a model, at any depth."""
    return list(layer._flatten_layers(include_self=False))


def direct_layers(layer: Any) -> list[Any]:
    """The layers that a layer itself holds."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def own_variables(layer: Any) -> list[Any]:
    """The variables that a layer itself made, without those of the layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def functional_graph(layer: Any) -> Any:
    """The object that knows the graph of a functional model; None for any other layer.

    A `Sequential` has it in an attribute.
    """
    graph = getattr(layer, "_functional", None) or layer
    return graph if hasattr(graph, "_nodes_by_depth") else None


def nodes_of(graph: Any) -> Iterator[Any]:
    """The calls of operations in a functional graph, in the order of computation."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from graph._nodes_by_depth[depth]


def producer(tensor: Any) -> tuple[Any, int, int]:
    """The operation that gives a symbolic tensor, which of its calls, and which output of that."""
    operation, call, output = tensor._keras_history
    return operation, call, output


def producing_node(tensor: Any) -> tuple[Any, int]:
    """The call (node) that gives a symbolic tensor, and which of its outputs it is."""
    operation, call, output = producer(tensor)
    return operation._inbound_nodes[call], output
