"""The blocks of a model: the groups of layers for layer-wise learning rates.

A block is what papers count: a residual block, an inception module, a transformer layer. Most
blocks show in the names of layers (`block_names.py`). The graph shows the others: a block is what
lies between two layers that every path goes through. timm finds blocks by names alone
(`group_matcher`), with a list of patterns for each network.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_lr.optimizers.block_names import block_labels, stage_of
from keras_lr.optimizers.model_graph import ModelGraph
from keras_lr.optimizers.model_parts import Part, parts_of

__all__ = ["groups_of", "heads_of"]

_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_MOST_BLOCKS = 32  # with more blocks, the stages in their names are the groups
_LONGEST_BRANCH = 6  # layers in a branch of a block that the graph shows
_LARGEST_BLOCK = 16  # layers in a block that the graph shows
_LONGEST_JOINT = 1  # layers in a row that belong to the block beside them


def groups_of(model: Any) -> list[list[Part]]:
    """The parts of a model that train, in groups from the input to the output.

    The docstring of `layer_groups` in `presets.py` has the rules.
    """
    return _Blocks(model).groups()


def heads_of(model: Any) -> list[Part]:
    """The parts of the head, or of all heads of a model with several outputs.

    The head of a model with one output is its last layer. Each of several heads can be a stack of
    layers that lead to that output alone.
    """
    blocks = _Blocks(model)
    heads = []
    for unit in sorted(blocks.heads):
        places = [place for place in blocks.order if blocks.unit[place] == unit]
        if blocks.label[unit]:  # the model ends in a block: its head is the block's last layer
            last = max((i for i, place in enumerate(places) if not blocks.vector[place]), default=0)
            places = places[last:]
        heads += places
    return [blocks.parts[place] for place in sorted(heads)]


class _Blocks:
    """The units of a model: its blocks, and single layers with the vectors that belong to them.

    Args:
        model: A built model with weights that train.

    Attributes:
        parts: The parts that train; `order` is the range of their places.
        vector: For each part, whether all its weights are vectors, as in normalisation.
        unit: For each part, its unit: the place of one of the unit's parts.
        label: For each unit, the name of its block; None for a single layer.
        heads: The units that are heads.
    """

    def __init__(self, model: Any) -> None:
        self.parts = [part for part in parts_of(model) if part.trained]
        self.order = range(len(self.parts))
        self.vector = [
            all(len(weight.shape) < 2 for weight in part.layer.weights) for part in self.parts
        ]
        self._graph = ModelGraph(model, self.parts)
        self._part_of, self._sources = self._graph.part_of, self._graph.sources
        labels = block_labels([part.path for part in self.parts])
        self._unite(labels)
        if len({label for label in self.label if label is not None}) > _MOST_BLOCKS:
            stages = [stage_of(label) for label in labels]
            if 1 < len(set(stages) - {None}) < len(set(labels) - {None}):
                self._unite(stages)
        self._connect()
        self.heads = self._heads()

    # Units: blocks, and layers with the vectors that belong to them

    def _unite(self, labels: list[str | None]) -> None:
        """Put the parts into units: by label, vectors with the layer before, then by graph."""
        self.unit = list(self.order)
        self.label: list[str | None] = list(labels)
        first: dict[str, int] = {}
        for place, label in enumerate(labels):
            if label is not None:
                self._join(place, first.setdefault(label, place))
        for vertex, own in enumerate(self._part_of):
            if own is None or self.label[self.unit[own]] is not None:
                continue
            after = [
                self._part_of[v] for v, sources in enumerate(self._sources) if vertex in sources
            ]
            following = [each for each in after if each is not None]
            leading = [
                each for i in self._sources[vertex] if (each := self._part_of[i]) is not None
            ]
            if self.vector[own] and (leading or following):
                self._join(own, max(leading) if leading else min(following))
        for place, part in enumerate(self.parts):  # half of a separable convolution
            unit = self.unit[place]
            if self.label[unit] is None and isinstance(part.layer, _DEPTHWISE):
                following = [
                    other
                    for v, sources in enumerate(self._sources)
                    if (other := self._part_of[v]) is not None and self.unit[other] != unit
                    for i in sources
                    if (before := self._part_of[i]) is not None and self.unit[before] == unit
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
        """Find blocks in the graph: branches between two vertices that every path goes through."""
        live = [v for v, of in enumerate(self._part_of) if of is not None or self._sources[v]]
        waiting = dict.fromkeys(live, 0)
        for vertex in live:
            for each in self._graph.inputs[vertex]:
                if each in waiting:
                    waiting[each] += 1
        start: int | None = None
        segment: list[int] = []
        opened: set[int] = set()
        attention: int | None = None  # a part of the attention that feeds the next segment
        for vertex in live:
            for each in self._graph.inputs[vertex]:
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
                inner = segment if self._part_of[vertex] is None else segment[:-1]
                united = self._unite_segment(inner)
            if united is not None:
                # Attention and the layers after it make one block of a transformer.
                if attention is not None and not self._attends(united):
                    self._join(united, attention)
                attention = united if self._attends(united) else None
            ending = self._part_of[vertex]
            if ending is not None and not self.vector[ending]:
                attention = None
            start, segment = vertex, []

    def _between(self, start: int, segment: list[int], end: int) -> bool:
        """Whether every vertex of a segment is on a path from `start` to `end`.

        Branches that are concatenated at the end of the model are heads, not a block.
        """
        after = all(self._graph.before[v] >> start & 1 for v in segment)
        before = all(self._graph.before[end] >> v & 1 for v in segment if v != end)
        last = not any(self._part_of[v] is not None for v in range(end, len(self._part_of)))
        return after and before and not (last and "Concat" in self._graph.kinds[end])

    def _attends(self, place: int) -> bool:
        unit = self.unit[place]
        return any(
            "Attention" in type(part.layer).__name__
            for part, other in zip(self.parts, self.unit, strict=True)
            if other == unit
        )

    def _unite_segment(self, segment: list[int]) -> int | None:
        """Unite the parts in a segment; return one of them, or None if they are not a block."""
        places = [place for v in segment if (place := self._part_of[v]) is not None]
        named = {label for place in places if (label := self.label[self.unit[place]]) is not None}
        if not named:
            # A vector at the start belongs to the layer before it.
            places = [place for place in places if not self.vector[place]]
            longest: dict[int, int] = {}
            for v in segment:
                here = int(self._part_of[v] in places)
                longest[v] = here + max(
                    (longest.get(i, 0) for i in self._graph.inputs[v]), default=0
                )
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

    # Heads, and the distance of each unit from the output

    def _connect(self) -> None:
        """Find the units after each unit, and the vertices with a part after each vertex."""
        self._active = [v for v, place in enumerate(self._part_of) if place is not None]
        self._next: dict[int, list[int]] = {v: [] for v in self._active}
        for vertex in self._active:
            for each in self._sources[vertex]:
                self._next[each].append(vertex)
        self._units = {
            v: self.unit[place] for v in self._active if (place := self._part_of[v]) is not None
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
        heads = {unit: {unit} for unit in ends}  # each with the stack that leads to it alone
        for unit in dict.fromkeys(self._units[v] for v in reversed(self._active)):
            owners = {end for end, stack in heads.items() if self._after[unit] & stack}
            if unit not in ends and len(owners) == 1 and self.label[unit] is None:
                (end,) = owners
                if self._after[unit] <= heads[end]:
                    heads[end].add(unit)
        stacks = set().union(*heads.values())
        return stacks if 2 * len(stacks) < len(self._after) + len(ends) else ends

    def groups(self) -> list[list[Part]]:
        """The parts in groups, the farthest from the output first."""
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
            # A part that is not in the graph is in the group next to the head.
            members.setdefault(level.get(self.unit[place], 1), []).append(part)
        return [members[key] for key in sorted(members, reverse=True)]

    def _stem(self, blocks: set[int]) -> set[int]:
        """The units before the first block."""
        inside = sum(1 << v for v in self._active if self._units[v] in blocks)
        late = {self._units[v] for v in self._active if self._graph.before[v] & inside}
        leads: dict[int, bool] = {}
        for vertex in reversed(self._active):
            leads[vertex] = any(self._units[v] in blocks or leads[v] for v in self._next[vertex])
        early = {self._units[v] for v in self._active if leads[v]}
        return early - late - blocks - self.heads

    def _runs(self, units: set[int]) -> dict[int, int]:
        """For each of these units, the length of the longest row of them that it is in."""
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
