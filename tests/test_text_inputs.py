"""A model that reads text: the forms of text that `fit` takes, against its tokens as numbers."""

import keras
import numpy as np
import pytest

import keras_lr

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends have no tensors of text"
)
WORDS = ["ant", "bee", "cat", "dog"]
rng = np.random.default_rng(0)
TEXTS = np.array([" ".join(rng.choice(WORDS, 5)) for _ in range(160)])
LABELS = np.array([text.count("ant") > 1 for text in TEXTS]).astype("int32")


def vectorization():
    return keras.layers.TextVectorization(output_sequence_length=5, vocabulary=WORDS)


def classifier(*first):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Embedding(8, 4), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([*first, *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def reader():
    return classifier(keras.Input((), dtype="string"), vectorization())


def tensor():
    import tensorflow as tf

    return tf.constant(TEXTS)


@pytest.mark.parametrize("form", [tensor, lambda: TEXTS.astype(object)], ids=["tensor", "objects"])
def test_text_gives_the_answers_of_its_tokens(form):
    tokens = np.asarray(vectorization()(TEXTS))
    found = []
    for model, x in ((reader(), form()), (classifier(keras.Input((5,), dtype="int32")), tokens)):
        test = keras_lr.lr_find(model, x, LABELS, budget=120, seed=3, verbose=0)
        checked = keras_lr.lr_find(
            model, x, LABELS, validation_data=(x[:32], LABELS[:32]), steps=30, seed=3, verbose=0
        )
        noise = keras_lr.noise_scale(model, x, LABELS, batches=16, seed=3)
        options = {"epochs": 1, "max_runs": 3, "also": (), "seed": 3, "verbose": 0}
        searched = keras_lr.search(model, x, LABELS, **options)
        losses = [each for run in (test, checked) for each in run.probes.losses]
        found.append([*losses, float(noise), searched.answer.setting.learning_rate])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_an_array_of_fixed_width_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"x holds text of NumPy's type <U\d+, which Keras's fit"):
        keras_lr.lr_find(reader(), TEXTS, LABELS, verbose=0)
