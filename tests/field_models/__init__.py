"""Small models in the shapes of Keras's own guides and examples, written as users write them.

Each is made anew, trains in a second, and has an entry in `MODELS` that says on which backends
`fit` can train it, and why not on the others.
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
