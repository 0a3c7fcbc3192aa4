"""From keys to variables: which multiplier each variable has, which variables a key covers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_lr._util import checks
from keras_lr.optimizers.patterns import Pattern
from keras_lr.optimizers.variable_paths import Paths, path_of, paths_in
from keras_lr.schedules.base import as_schedule, at_count, deserialized

_LISTED = 40  # layers in a message


@dataclass(frozen=True, eq=False)
class Multiplier:
    """The factor on a variable's learning rate: a number, times functions of the step.

    Two multipliers are equal if their numbers are equal and their functions are the same objects:
    a user's schedule may be neither hashable nor comparable.
    """

    number: float = 1.0
    curves: tuple[Any, ...] = ()

    def _identity(self) -> tuple[Any, ...]:
        return self.number, *map(id, self.curves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Multiplier) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    @property
    def plain(self) -> bool:
        """Whether it changes nothing."""
        return self.number == 1.0 and not self.curves

    @property
    def frozen(self) -> bool:
        """Whether it is 0 at every update."""
        return self.number == 0.0

    def at(self, updates: Any) -> Any:
        """The value after so many updates: a float, or a tensor if it varies."""
        if self.frozen or not self.curves:
            return self.number
        value: Any = self.number
        for curve in self.curves:
            value = value * keras.ops.cast(at_count(curve, updates), "float32")
        return value

    def times(self, curve: Any) -> Multiplier:
        """The multiplier times another function of the step."""
        return Multiplier(self.number, (*self.curves, curve))


@dataclass(frozen=True, eq=False)
class Rule:
    """A key with its multiplier.

    Args:
        key: A layer, or a regular expression.
        value: The multiplier, a float or a schedule.
        places: The indices of the optimizer's variables that the key covered when it was saved.
            Loading can change the paths of variables: names of outer models may be missing.
        total: The number of variables that the optimizer had then.
    """

    key: Any
    value: Any
    places: tuple[int, ...] = ()
    total: int | None = None

    @property
    def is_number(self) -> bool:
        """Whether the multiplier stays the same, as no schedule does."""
        return isinstance(self.value, float)

    def covered(self, variables: Sequence[Any], paths: Paths | None = None) -> list[int]:
        """The indices of the variables that the key covers, as the function `covered`."""
        if self.total == len(variables):
            return list(self.places)
        return covered(self.key, variables, paths)

    def saved(self, variables: Sequence[Any] | None, paths: Paths | None = None) -> dict[str, Any]:
        """The rule as the optimizer's config contains it.

        Args:
            variables: The variables of the optimizer; None while they are unknown.
            paths: Their paths, from `paths_in`.
        """
        value = self.value
        if not self.is_number:
            value = keras.saving.serialize_keras_object(value)
        if variables is None:
            return {"key": _as_text(self.key), "multiplier": value}
        places = self.covered(variables, paths)
        text = _as_text(self.key, [variables[place] for place in places])
        places_of = {"variables": places, "of": len(variables)}
        return {"key": text, "multiplier": value, **places_of}

    @staticmethod
    def loaded(entry: Mapping[str, Any]) -> Rule:
        """The rule that `saved` wrote."""
        key = _checked_key(entry["key"])
        value = checked_value(key, entry["multiplier"])
        return Rule(key, value, tuple(entry.get("variables", ())), entry.get("of"))


def _as_text(key: Any, variables: Sequence[Any] | None = None) -> str:
    if isinstance(key, str):
        return key
    return "|".join(map(re.escape, owners(key.variables if variables is None else variables)))


def check_multipliers(multipliers: Any) -> list[Rule]:
    """The rules in a dictionary; every value becomes a float or a schedule.

    Raises:
        TypeError: If it is not a dictionary, or a key or a value has the wrong type.
        ValueError: If a value is below 0 or not finite, or a key is not a regular expression.
    """
    if multipliers is None:
        return []
    if not isinstance(multipliers, Mapping):
        raise TypeError(
            "multipliers must be a dictionary from layers, names or regular expressions to "
            f"numbers or schedules; got {multipliers!r}."
        )
    return [
        Rule(_checked_key(key), checked_value(key, value)) for key, value in multipliers.items()
    ]


def _checked_key(key: Any) -> Any:
    if isinstance(key, keras.layers.Layer):
        return key
    if not isinstance(key, str):
        raise TypeError(
            "A key of multipliers must be a layer, a layer's name, or a regular expression on "
            f"the paths of variables; got {key!r}."
        )
    try:
        Pattern(key)
    except ValueError as error:
        raise ValueError(
            f"A key of multipliers must be a regular expression; got {key!r} ({error}). "
            "Use re.escape for a name with special characters."
        ) from error
    return str(key)


def check_keys(name: str, given: Any) -> list[Any]:
    """A layer, a string, or a list of these, as a list.

    Raises:
        TypeError: If it is something else.
    """
    single = isinstance(given, (str, keras.layers.Layer))
    keys = [given] if single else given
    kinds = "a layer, a layer's name, a regular expression, or a list of these"
    if not isinstance(keys, Sequence):
        raise TypeError(f"{name} must be {kinds}; got {given!r}.")
    for key in keys:
        if not isinstance(key, (str, keras.layers.Layer)):
            raise TypeError(f"{name} must be {kinds}; got {key!r} in it.")
    return [str(key) if isinstance(key, str) else key for key in keys]


def check_groups(groups: Any) -> list[list[Any]]:
    """A list of groups of layers, each in a form that `check_keys` takes, as a list of lists.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(groups, (str, keras.layers.Layer)) or not isinstance(groups, Sequence):
        raise TypeError(f"groups must be a list of groups of layers; got {groups!r}.")
    return [check_keys("A group", group) for group in groups]


def checked_value(key: Any, value: Any) -> Any:
    """A multiplier for `key`: a float of at least 0, or a schedule."""
    value = deserialized(value)
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return as_schedule(value)
    return checks.number(f"The multiplier of {key_name(key)!r}", value, least=0)


def key_name(key: Any) -> str:
    """The name of a key in messages."""
    return key if isinstance(key, str) else str(key.name)


def covered(key: Any, variables: Sequence[Any], paths: Paths | None = None) -> list[int]:
    """The indices of the variables that a key covers.

    A string is a regular expression that must match whole sections of one of a variable's paths:
    `dense` covers `encoder/dense/kernel`, but not `dense_1/kernel`.

    Args:
        key: A string, or a layer.
        variables: The variables.
        paths: Their paths, from `paths_in`; None if no model is known.

    Raises:
        ValueError: If it covers none.
    """
    paths = [(path_of(variable),) for variable in variables] if paths is None else paths
    if isinstance(key, str):
        pattern = Pattern(key)
        found = [i for i, names in enumerate(paths) if any(map(pattern.covers, names))]
    else:
        members = {id(variable) for variable in key.variables}
        found = [i for i, variable in enumerate(variables) if id(variable) in members]
    if not found:
        kind = "trainable variable" if isinstance(key, str) else "trainable variable of the layer"
        raise ValueError(
            f"No {kind} matches {key_name(key)!r}; the trainable layers are: "
            f"{', '.join(_shortened(owners(variables, paths)))}."
        )
    return found


def owners(variables: Sequence[Any], paths: Paths | None = None) -> list[str]:
    """The paths of the layers that own the variables, in order and without repeats."""
    paths = [(path_of(variable),) for variable in variables] if paths is None else paths
    # The second path is the one from the structure of the model.
    whole = [names[1] if len(names) > 1 else names[0] for names in paths]
    return list(dict.fromkeys(name.rpartition("/")[0] for name in whole))


def _shortened(names: list[str]) -> list[str]:
    rest = len(names) - _LISTED
    return names if rest <= 0 else [*names[:_LISTED], f"and {rest} more"]


def grouped(multipliers: Iterable[Multiplier]) -> dict[Multiplier, list[int]]:
    """The indices at which each multiplier occurs."""
    places: dict[Multiplier, list[int]] = {}
    for place, multiplier in enumerate(multipliers):
        places.setdefault(multiplier, []).append(place)
    return places


def resolve_in(rules: Sequence[Rule], model: Any) -> list[Multiplier]:
    """The multiplier of each trainable variable of a model; see `resolve`."""
    variables = model.trainable_variables
    return resolve(rules, variables, paths_in(model, variables))


def resolve(
    rules: Sequence[Rule], variables: Sequence[Any], paths: Paths | None = None
) -> list[Multiplier]:
    """The multiplier of each variable; 1 for a variable that no key covers.

    Raises:
        ValueError: If a key covers no variable, or two keys cover the same one.
    """
    result = [Multiplier()] * len(variables)
    by: dict[int, Any] = {}
    for rule in rules:
        for index in rule.covered(variables, paths):
            if index in by:
                raise ValueError(
                    "A variable can have only one multiplier; got two keys for "
                    f"{path_of(variables[index])!r}: {key_name(by[index])!r} and "
                    f"{key_name(rule.key)!r}. Make one of them narrower."
                )
            by[index] = rule.key
            steady = rule.is_number
            result[index] = Multiplier(rule.value) if steady else Multiplier(1.0, (rule.value,))
    return result
