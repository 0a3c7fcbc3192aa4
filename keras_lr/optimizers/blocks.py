"""The layers of a model, and the blocks that they make: the groups of layer-wise rates.

A block is what papers count: a residual block, an inception module, a transformer layer. Names
show most of them (`block2a_expand_conv`, `conv4_block3_1_bn`, `transformer_layer_3`); the graph of
a functional model shows the others, as what lies between two layers that every path goes through.
timm does the same from names alone (`group_matcher`), with a list of patterns for each network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_lr._keras.layers import functional_graph, nodes_of, producing_node
from keras_lr.optimizers.paths import sublayers

__all__ = ["Part", "groups_of", "heads_of", "parts_of"]

_WORDS = "blocks?|layers?|stages?|cell|module|unit|stack|mixed|expanded_conv"
_INDEXED = re.compile(rf"^(.*(?:{_WORDS})_?)(\d+[a-z]*)(?=_|$)", re.IGNORECASE)
_BARE = re.compile(rf"^(.*(?:{_WORDS}))(?=_|$)", re.IGNORECASE)
_BETWEEN = re.compile("downsampl|transition", re.IGNORECASE)
_STAGE = re.compile(r"^(.*stage_?\d+)_|^(.*\d)_?block_?\d+$|^(.*block_?\d+)[a-z]+$", re.IGNORECASE)
_HEAD = re.compile("head|logit|classifier|prediction|output", re.IGNORECASE)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_MOST_BLOCKS = 32  # above this, the stages that names tell count in the place of blocks
_LONGEST_BRANCH = 6  # layers in a branch of one block of the graph
_LARGEST_BLOCK = 16  # layers in one block of the graph
_LONGEST_JOINT = 1  # layers in a row that belong to the block beside them


@dataclass(frozen=True, eq=False)
class Part:
    """A layer as it counts here, or the weights that belong to a model itself.

    Args:
        path: The names of the models around it, without the one that was asked, and its own.
        layer: The layer or the model.
        weights: Its weights that no earlier part has.
        trained: Those of them that train.
        around: The models around it, without the one that was asked.
    """

    path: tuple[str, ...]
    layer: Any
    weights: list[Any]
    trained: list[Any]
    around: tuple[Any, ...] = ()


def parts_of(model: Any) -> list[Part]:
    """The layers of a model from input to output, nested ones in the place of their model.

    Each layer is there once, at its first use, and so is each weight. Layers without weights are
    there too.
    """
    training = {id(variable) for variable in model.trainable_variables}
    seen: set[int] = set()
    parts: list[Part] = []
    for path, around, layer, weights in _walk(model, (), (), set()):
        fresh = [weight for weight in weights if id(weight) not in seen]
        seen.update(map(id, fresh))
        trained = [weight for weight in fresh if id(weight) in training]
        parts.append(Part(path, layer, fresh, trained, around))
    return parts


_Step = tuple[tuple[str, ...], tuple[Any, ...], Any, list[Any]]


def _walk(
    layer: Any, path: tuple[str, ...], around: tuple[Any, ...], seen: set[int]
) -> Iterator[_Step]:
    inner = entered(layer)
    if inner is None:
        yield path, around, layer, layer.weights
        return
    in_layers = {id(weight) for each in inner for weight in each.weights}
    own = [weight for weight in layer.weights if id(weight) not in in_layers]
    if own:
        yield path or (layer.name,), around, layer, own
    around = (*around, layer) if path else ()
    for each in inner:
        if id(each) not in seen:
            seen.add(id(each))
            yield from _walk(each, (*path, each.name), around, seen)


def entered(layer: Any) -> list[Any] | None:
    """The layers that count instead of this one; None where it counts itself.

    Models are entered, wrappers around a model, and layers that keep a list of blocks: at least
    two layers of one class that hold layers themselves.
    """
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    if isinstance(layer, keras.layers.Wrapper) and isinstance(layer.layer, keras.Model):
        return [layer.layer]
    for name, value in vars(layer).items():
        if name.startswith("_") or not isinstance(value, (list, tuple)):
            continue
        if len(value) > 1 and len({type(each) for each in value}) == 1 and _holds_layers(value[0]):
            return sublayers(layer)
    return None


def _holds_layers(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Layer) and any(e.weights for e in sublayers(layer))


def groups_of(model: Any) -> list[list[Part]]:
    """The parts of a model that train, in groups from the input to the output.

    A block is a group. Of the layers that are in no block, those before the first block are one
    group with the embeddings, and a single one belongs to the next block, or to the last one if
    none follows; where several follow each other, or a model has no blocks, each counts. A layer
    that has vectors only, as normalisation has, belongs to the layer before it. What is at the
    same distance from the output is one group. The head, or all heads, is the last group.
    """
    return _Blocks(model).groups()


def heads_of(model: Any) -> list[Part]:
    """The parts that train and that nothing follows, and the layers that lead to one of several.

    One of several heads can be a stack of layers; that of a model with one output is its last
    layer.
    """
    blocks = _Blocks(model)
    heads = []
    for unit in sorted(blocks.heads):
        places = [place for place in blocks.order if blocks.unit[place] == unit]
        if blocks.label[unit]:  # the model has no head; of its last block, the last layer
            last = max((i for i, place in enumerate(places) if not blocks.vector[place]), default=0)
            places = places[last:]
        heads += places
    return [blocks.parts[place] for place in sorted(heads)]


class _Blocks:
    """The graph of the parts of a model that train, and the unit that each belongs to.

    Args:
        model: A built model with weights that train.
    """

    def __init__(self, model: Any) -> None:
        self.parts = [part for part in parts_of(model) if part.trained]
        self.order = range(len(self.parts))
        self._place = {id(part.layer): place for place, part in enumerate(self.parts)}
        self.vector = [
            all(len(weight.shape) < 2 for weight in part.layer.weights) for part in self.parts
        ]
        self._of: list[int | None] = []  # the part of each vertex, in the order of computation
        self._inputs: list[set[int]] = []
        self._kinds: list[str] = []
        self._expand(model, set())
        self._drop_later_uses()
        labels = self._labels(model.name)
        self._unite(labels)
        if len({label for label in self.label if label is not None}) > _MOST_BLOCKS:
            stages = [_stage(label) for label in labels]
            if 1 < len(set(stages) - {None}) < len(set(labels) - {None}):
                self._unite(stages)
        self._connect()
        self.heads = self._heads()

    # The graph

    def _vertex(self, layer: Any, inputs: set[int]) -> set[int]:
        self._of.append(self._place.get(id(layer)))
        self._inputs.append(inputs)
        self._kinds.append(type(layer).__name__)
        return {len(self._of) - 1}

    def _expand(self, layer: Any, inputs: set[int]) -> list[set[int]]:
        """Add the vertices of a layer that is called on the outputs of others.

        Returns:
            For each output, the vertices that it comes from; one entry if all are the same.
        """
        inner = entered(layer)
        if inner is None:
            return [self._vertex(layer, inputs)]
        if id(layer) in self._place:  # weights of its own
            inputs = self._vertex(layer, inputs)
        graph = functional_graph(layer)
        if graph is not None:
            return self._expand_graph(graph, inputs)
        heads = _heads_by_name(layer, inner)
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
        """Let a layer count at its first use only, where it is used again on what it gave."""
        self._before: list[int] = []  # the vertices before each one, as bits
        for vertex, inputs in enumerate(self._inputs):
            bits = 0
            for each in inputs:
                bits |= self._before[each] | 1 << each
            self._before.append(bits)
            place = self._of[vertex]
            if place is not None and any(
                self._of[i] == place and bits >> i & 1 for i in range(vertex)
            ):
                self._of[vertex] = None
        # The vertices with a part that lead to each vertex with nothing but others between.
        self._sources: list[set[int]] = []
        reached: list[set[int]] = []
        for vertex, inputs in enumerate(self._inputs):
            sources = set().union(*(reached[each] for each in inputs))
            self._sources.append(sources)
            reached.append(sources if self._of[vertex] is None else {vertex})

    # Units: blocks, and layers with the vectors that belong to them

    def _labels(self, name: str) -> list[str | None]:
        """The name of the block that each part is in, as its path tells it."""
        paths = [part.path for part in self.parts]
        bases = {
            (*path[:depth], found[1].rstrip("_"))
            for path in paths
            for depth, each in enumerate(path)
            if (found := _INDEXED.match(each))
        }
        labels: list[str | None] = []
        for path in paths:
            label = None
            for depth, each in enumerate(path):
                found = _INDEXED.match(each)
                bare = None if found else _BARE.match(each)
                # The first of several has no number: `expanded_conv`, then `expanded_conv_1`.
                if bare and ((*path[:depth], bare[1]) in bases or bare[1] == "expanded_conv"):
                    found = bare
                if found and not _BETWEEN.search(each):
                    label = "/".join((*path[:depth], found[0]))
            labels.append(label)
        return labels

    def _unite(self, labels: list[str | None]) -> None:
        """Put the parts into units; `label` has that of each unit, None for single layers."""
        self.unit = list(self.order)
        self.label: list[str | None] = list(labels)
        first: dict[str, int] = {}
        for place, label in enumerate(labels):
            if label is not None:
                self._join(place, first.setdefault(label, place))
        for vertex, own in enumerate(self._of):
            if own is None or self.label[self.unit[own]] is not None:
                continue
            after = [self._of[v] for v, sources in enumerate(self._sources) if vertex in sources]
            following = [each for each in after if each is not None]
            leading = [each for i in self._sources[vertex] if (each := self._of[i]) is not None]
            if self.vector[own] and (leading or following):
                self._join(own, max(leading) if leading else min(following))
        for place, part in enumerate(self.parts):  # one half of a separable convolution
            unit = self.unit[place]
            if self.label[unit] is None and isinstance(part.layer, _DEPTHWISE):
                following = [
                    other
                    for v, sources in enumerate(self._sources)
                    if (other := self._of[v]) is not None and self.unit[other] != unit
                    for i in sources
                    if (before := self._of[i]) is not None and self.unit[before] == unit
                ]
                if following:
                    self._join(place, min(following))
        self._unite_segments()

    def _join(self, place: int, other: int) -> None:
        mine, theirs = self.unit[place], self.unit[other]
        label = self.label[mine] or self.label[theirs]
        into, gone = min(mine, theirs), max(mine, theirs)
        self.unit = [into if unit == gone else unit for unit in self.unit]
        self.label[into] = label

    def _unite_segments(self) -> None:
        """Find blocks in the graph: branches between two vertices that all paths go through."""
        live = [v for v, of in enumerate(self._of) if of is not None or self._sources[v]]
        waiting = dict.fromkeys(live, 0)
        for vertex in live:
            for each in self._inputs[vertex]:
                if each in waiting:
                    waiting[each] += 1
        start: int | None = None
        segment: list[int] = []
        opened: set[int] = set()
        attention: int | None = None  # a part of the attention that feeds the next segment
        for vertex in live:
            for each in self._inputs[vertex]:
                if each in waiting:
                    waiting[each] -= 1
                    if not waiting[each]:
                        opened.discard(each)
            if waiting[vertex]:
                opened.add(vertex)
            segment.append(vertex)
            if not opened <= {vertex}:
                continue
            united = None
            if start is not None and len(segment) > 1 and self._between(start, segment, vertex):
                inner = segment if self._of[vertex] is None else segment[:-1]
                united = self._unite_segment(inner)
            if united is not None:
                # Attention and the layers after it make one block of a transformer.
                if attention is not None and not self._attends(united):
                    self._join(united, attention)
                attention = united if self._attends(united) else None
            ending = self._of[vertex]
            if ending is not None and not self.vector[ending]:
                attention = None
            start, segment = vertex, []

    def _between(self, start: int, segment: list[int], end: int) -> bool:
        """Whether all of a segment is on ways from one vertex to another that goes on.

        What is concatenated at the end of the model are heads, and no block.
        """
        after = all(self._before[v] >> start & 1 for v in segment)
        before = all(self._before[end] >> v & 1 for v in segment if v != end)
        last = not any(self._of[v] is not None for v in range(end, len(self._of)))
        return after and before and not (last and "Concat" in self._kinds[end])

    def _attends(self, place: int) -> bool:
        unit = self.unit[place]
        return any(
            "Attention" in type(part.layer).__name__
            for part, other in zip(self.parts, self.unit, strict=True)
            if other == unit
        )

    def _unite_segment(self, segment: list[int]) -> int | None:
        """Make one block of the parts in a segment; give one of them, or None if it is no block."""
        places = [place for v in segment if (place := self._of[v]) is not None]
        named = {label for place in places if (label := self.label[self.unit[place]]) is not None}
        if not named:
            # A vector at the beginning belongs to the layer before it.
            places = [place for place in places if not self.vector[place]]
            longest: dict[int, int] = {}
            for v in segment:
                here = int(self._of[v] in places)
                longest[v] = here + max((longest.get(i, 0) for i in self._inputs[v]), default=0)
            if max(longest.values()) > _LONGEST_BRANCH or len(places) > _LARGEST_BLOCK:
                return None
        if not places or len(named) > 1 or any(map(self._embeds, places)):
            return None
        for place in places:
            self._join(place, places[0])
        if not named:
            self.label[self.unit[places[0]]] = f"/{places[0]}"
        return places[0]

    def _embeds(self, place: int) -> bool:
        kinds = type(self.parts[place].layer).__mro__
        return any("Embedding" in kind.__name__ for kind in kinds)

    # Distances

    def _connect(self) -> None:
        """The units that follow each unit, and the vertices that follow each vertex."""
        self._active = [v for v, place in enumerate(self._of) if place is not None]
        self._next: dict[int, list[int]] = {v: [] for v in self._active}
        for vertex in self._active:
            for each in self._sources[vertex]:
                self._next[each].append(vertex)
        self._units = {
            v: self.unit[place] for v in self._active if (place := self._of[v]) is not None
        }
        self._after: dict[int, set[int]] = {unit: set() for unit in self._units.values()}
        for vertex, following in self._next.items():
            self._after[self._units[vertex]] |= {self._units[each] for each in following}
        for unit, following_units in self._after.items():
            following_units.discard(unit)

    def _heads(self) -> set[int]:
        ends = {unit for unit, following in self._after.items() if not following}
        if not ends:
            return {self.unit[-1]}
        if len(ends) == 1:
            return ends
        heads = {unit: {unit} for unit in ends}  # with the stack that leads to it alone
        for unit in dict.fromkeys(self._units[v] for v in reversed(self._active)):
            owners = {end for end, stack in heads.items() if self._after[unit] & stack}
            if unit not in ends and len(owners) == 1 and self.label[unit] is None:
                (end,) = owners
                if self._after[unit] <= heads[end]:
                    heads[end].add(unit)
        stacks = set().union(*heads.values())
        return stacks if 2 * len(stacks) < len(self._after) + len(ends) else ends

    def groups(self) -> list[list[Part]]:
        blocks = {unit for unit in self._after if self.label[unit] is not None}
        counted = len(blocks - self.heads) > 1
        stem = self._stem(blocks) if counted else set()
        weight = dict.fromkeys(self._after, 1)
        if counted:
            loose = set(self._after) - blocks - self.heads - stem
            for unit, length in self._runs(loose).items():
                weight[unit] = int(length > _LONGEST_JOINT)
        distance: dict[int, int] = {}
        level = dict.fromkeys(self._after, 0)
        for vertex in reversed(self._active):
            unit = self._units[vertex]
            within = [distance[v] for v in self._next[vertex] if self._units[v] == unit]
            beyond = [distance[v] for v in self._next[vertex] if self._units[v] != unit]
            own = 0 if unit in self.heads else weight[unit]
            distance[vertex] = max([*within, own + max(beyond, default=0)])
            if unit in self.heads:
                distance[vertex] = 0
            else:
                level[unit] = max(level[unit], distance[vertex], 1)
        embeddings = {
            self.unit[place]
            for place in self.order
            if self._embeds(place)
            and self.label[self.unit[place]] is None
            and self.unit[place] in self._after
        } - self.heads
        lowest = stem | embeddings
        others = [level[unit] for unit in self._after if unit not in lowest]
        for unit in lowest:
            level[unit] = max(others) + 1 if counted or not others else max(level.values())
        members: dict[int, list[Part]] = {}
        for place, part in enumerate(self.parts):
            # What the graph does not have, such as an attribute that is no layer of it, is near 0.
            members.setdefault(level.get(self.unit[place], 1), []).append(part)
        return [members[key] for key in sorted(members, reverse=True)]

    def _stem(self, blocks: set[int]) -> set[int]:
        """The units before all blocks."""
        inside = sum(1 << v for v in self._active if self._units[v] in blocks)
        late = {self._units[v] for v in self._active if self._before[v] & inside}
        reach: dict[int, bool] = {}
        for vertex in reversed(self._active):
            reach[vertex] = any(self._units[v] in blocks or reach[v] for v in self._next[vertex])
        early = {self._units[v] for v in self._active if reach[v]}
        return early - late - blocks - self.heads

    def _runs(self, units: set[int]) -> dict[int, int]:
        """For each of these units, the most of them in a row that it is in."""
        lengths: list[dict[int, int]] = []
        for vertices, neighbours in (
            (self._active, self._sources),
            (self._active[::-1], self._next),
        ):
            found: dict[int, int] = {}
            for vertex in vertices:
                unit = self._units[vertex]
                if unit in units:
                    beside = [self._units[v] for v in neighbours[vertex]]
                    longest = max((found.get(u, 0) for u in beside if u != unit), default=0)
                    found[unit] = max(found.get(unit, 0), longest + 1)
            lengths.append(found)
        return {unit: lengths[0][unit] + lengths[1][unit] - 1 for unit in lengths[0]}


def _stage(label: str | None) -> str | None:
    found = None if label is None else _STAGE.match(label)
    return next(filter(None, found.groups())) if found else label


def _heads_by_name(layer: Any, inner: list[Any]) -> list[Any]:
    """The last layers of a subclassed model that are called heads; they have one input."""
    if not isinstance(layer, keras.Model) or isinstance(layer, keras.Sequential):
        return []
    names: dict[int, str] = {id(each): each.name for each in inner}
    for name, value in {**vars(layer), **vars(layer).get("_modules", {})}.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if id(each) in names and not name.startswith("_"):
                names[id(each)] += f" {name}"
    found: list[Any] = []
    for each in reversed(inner):
        if each.weights and not _HEAD.search(names[id(each)]):
            break
        found.insert(0, each)
    return found if len([each for each in found if each.weights]) > 1 else []
