"""The toy versions of the models of benchmarks/models, through what users do with a model."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "models"
# On each backend: texts with a preprocessor, adapters without targets, recurrent layers. Images,
# statistics that train, the search and the command run on the first one.
EVERYWHERE = [
    ("bert", "lr_find"),
    ("bert", "OneCycle"),
    ("gpt2", "LayerwiseLR"),
    ("forecaster", "lr_find"),
    ("forecaster", "ReduceLROnPlateau"),
]
ONCE = [
    ("gpt2", "lr_find"),
    ("bert", "search"),
    ("bert", "keras-lr find"),
    ("vit", "LayerwiseLR"),
    ("mobilenet", "lr_find"),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning"),
    # Keras's own, about models of KerasHub and about the data sets that they make.
    pytest.mark.filterwarnings("ignore:.*shuffle=True.* was passed:UserWarning"),
    pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer:UserWarning"),
    pytest.mark.long(
        "toy versions of real models take seconds; the field models have their shapes"
    ),
]


@pytest.mark.parametrize(
    ("model", "check"),
    [*EVERYWHERE, *(pytest.param(*each, marks=pytest.mark.once) for each in ONCE)],
)
def test_a_toy_version_of_a_real_model_comes_through(model, check, script):
    script("worker").CHECKS[check](script("zoo").ENTRIES[model], True)
