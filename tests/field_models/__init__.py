"""Small models like those in the guides and examples of Keras, written as users write them.

Each is made anew, trains in a second, and has an entry in `MODELS` that lists the backends on which
`fit` can train it, and why the others cannot.
"""

from field_models import (
    generative,
    graphs,
    heads,
    reinforcement,
    representation,
    sequences,
    steps,
    tasks,
    transfer,
)
from field_models.registry import BACKENDS, MODELS, FieldModel

__all__ = [
    "BACKENDS",
    "MODELS",
    "FieldModel",
    "generative",
    "graphs",
    "heads",
    "reinforcement",
    "representation",
    "sequences",
    "steps",
    "tasks",
    "transfer",
]
