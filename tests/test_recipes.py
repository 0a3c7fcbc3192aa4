"""The recipes of docs/recipes.md run with the real packages, and do what their text says."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
)
pytestmark = [
    # `get_best_models` loads weights into a model whose optimizer has no slots yet.
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
    # Keras Tuner's own.
    pytest.mark.filterwarnings(
        r"ignore:(currentThread|getName)\(\) is deprecated:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore::keras_lr.SuggestionWarning"),
    pytest.mark.filterwarnings("ignore:.*shuffle=True.* was passed:UserWarning"),
    pytest.mark.long("searches of other packages, which train for seconds"),
]


def run(word, folder, monkeypatch):
    """The names that the block with a word defines, after it ran in a folder."""
    monkeypatch.chdir(folder)
    block = next(each for each in BLOCKS if word in each)
    names = {"__name__": "recipe", "folder": folder}
    keras.utils.set_random_seed(0)
    exec(compile(block, PAGE.name, "exec"), names)
    return names


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run("keras_tuner", tmp_path_factory.mktemp("tuned"), monkeypatch)


def test_every_recipe_is_one_of_these():
    assert [("keras_tuner" in each, "keras_hub" in each) for each in BLOCKS] == [
        (True, False),
        (False, True),
    ]


def test_keras_tuner_completes_each_trial_and_saves_its_weights(tuned, monkeypatch):
    monkeypatch.chdir(tuned["folder"])
    tuner = tuned["tuner"]
    trials = list(tuner.oracle.trials.values())
    assert [trial.status for trial in trials] == ["COMPLETED"] * 3
    assert all("learning_rate" not in trial.hyperparameters.values for trial in trials)
    # The saved weights are those of the epoch that has the score.
    best = min(trials, key=lambda trial: trial.score)
    held = tuned["x"][-128:], tuned["y"][-128:]
    loss = tuner.get_best_models()[0].evaluate(*held, verbose=0)[0]
    assert loss == pytest.approx(best.score, rel=1e-4)


def test_the_range_test_changes_no_trial(tuned, tmp_path):
    """A trial at a fixed rate has the same score with a range test before its `fit`."""
    import keras_tuner

    class Fixed(tuned["Classifier"]):
        finds = False

        def fit(self, hp, model, x, y, **options):
            if self.finds:
                keras_lr.lr_find(model, x, y, steps=20, verbose=0)
            return model.fit(x, y, **options)

    scores = []
    for finds in (False, True):
        hypermodel = Fixed()
        hypermodel.finds = finds
        tuner = keras_tuner.RandomSearch(
            hypermodel, "val_loss", max_trials=2, directory=tmp_path / str(finds), seed=1
        )
        keras.utils.set_random_seed(0)
        tuner.search(tuned["x"], tuned["y"], validation_split=0.2, verbose=0)
        scores.append([trial.score for trial in tuner.oracle.trials.values()])
    assert scores[0] == scores[1]


@pytest.mark.once
def test_a_trial_without_a_suggestion_fails_with_its_reason(tuned, tmp_path):
    import keras_tuner

    tuner = keras_tuner.RandomSearch(
        tuned["Classifier"](), "val_loss", max_trials=1, directory=tmp_path, seed=1
    )
    flat = np.zeros((64, 8), "float32"), np.zeros(64, "int32")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(keras_lr.RangeTest, "suggest", refuse)
        tuner.search(*flat, validation_split=0.2, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    assert "NoSuggestion: the curve is flat" in trial.message


def refuse(test, *_, **__):
    raise keras_lr.NoSuggestion("the curve is flat")


@pytest.mark.once
def test_the_callbacks_of_a_search_are_copied_for_each_trial(tuned, tmp_path):
    """Also those that an earlier `fit` has used, which hold its model."""
    import keras_tuner

    plateau, logger = keras_lr.ReduceLROnPlateau("loss"), keras_lr.LRLogger()
    x, y, hypermodel = tuned["x"], tuned["y"], tuned["Classifier"]()
    model = hypermodel.build(keras_tuner.HyperParameters())
    model.fit(x, y, callbacks=[plateau, keras_lr.WarmUp(2), logger], verbose=0)
    logged = dict(logger.history)

    class Plain(tuned["Classifier"]):
        def fit(self, hp, model, *arguments, **options):
            assert options["callbacks"][0] is not plateau
            return model.fit(*arguments, **options)

    tuner = keras_tuner.RandomSearch(Plain(), "val_loss", max_trials=2, directory=tmp_path, seed=1)
    tuner.search(
        x,
        y,
        epochs=2,
        validation_split=0.2,
        callbacks=[plateau, keras_lr.WarmUp(2), logger],
        verbose=0,
    )
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 2
    assert logger.history == logged


def test_a_task_of_keras_hub_learns_from_texts_with_lora(tmp_path, monkeypatch):
    names = run("keras_hub", tmp_path, monkeypatch)
    classifier, found = names["classifier"], names["found"]
    assert found.low <= found.learning_rate <= found.high
    adapters = [v for v in classifier.backbone.trainable_variables if "lora" in v.path]
    assert adapters and len(classifier.history.history["loss"]) == 2
    assert np.isfinite(classifier.history.history["loss"]).all()
