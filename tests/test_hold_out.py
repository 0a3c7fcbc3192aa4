"""Short runs are judged by data that they do not train on, whatever kind the data are."""

import keras
import numpy as np
import pytest
from models import classifier, sampled

import keras_lr
from keras_lr.loops.data import DataEnded, stream
from keras_lr.range_test import training_data
from keras_lr.range_test.training_data import TrainingData

pytestmark = pytest.mark.long_elsewhere("rows are taken from the data before a backend trains")

BACKEND = keras.backend.backend()
ROWS = 200
# Each row is told by its first number.
X = np.tile(np.arange(ROWS, dtype="float32")[:, None] / ROWS, (1, 6))
Y = (np.arange(ROWS) % 3).astype("int32")


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return ROWS // 8

    def __getitem__(self, index):
        rows = slice(index * 8, index * 8 + 8)
        return X[rows], Y[rows]


def tf_data():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def unknown_length():
    return tf_data().filter(lambda x, y: True)


def loader():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(rows, batch_size=8)


def generator():
    return ((X[i : i + 8], Y[i : i + 8]) for i in range(0, ROWS, 8))


KINDS = {
    "arrays": lambda: (X, Y),
    "arrays, read lazily": lambda: (X, Y),
    "tf.data": tf_data,
    "tf.data of unknown length": unknown_length,
    "PyDataset": Batches,
    "PyDataset with workers": lambda: Batches(workers=2),
    "DataLoader": loader,
    "generator": generator,
}


def rows_of(batch):
    x = keras.ops.convert_to_numpy(keras.tree.flatten(batch)[0])
    return {round(float(value) * ROWS) for value in x[:, 0]}


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_rows_are_not_trained_on(kind, monkeypatch):
    if "lazily" in kind:
        monkeypatch.setattr(training_data, "_MAX_COPIED_BYTES", 0)
    data = KINDS[kind]()
    x, y = data if isinstance(data, tuple) else (data, None)
    options = {"batch_size": 8 if y is not None else None, "shuffle": True, "class_weight": None}
    given = TrainingData(classifier(), x, y, fit_options=options)
    used = given.stream()
    for _ in range(3):  # a ramp has used it before
        used.draw()
    held_out = given.hold_out(30, used)
    held, kept = held_out.batches, used
    if held_out.make_stream is not None:
        used.close()
        kept = held_out.make_stream()
    held_rows = set().union(*map(rows_of, held))
    trained = set()
    try:
        for _ in range(60):
            trained |= rows_of(kept.draw())
    except DataEnded:
        assert kind == "generator"
    kept.close()
    assert 30 <= len(held_rows) <= 40
    assert not held_rows & trained
    before = set(range(24)) if kind == "generator" else set()
    assert held_rows | trained | before == set(range(ROWS))


@pytest.mark.parametrize(
    "kind",
    sampled(
        list(KINDS),
        *("arrays", "tf.data of unknown length"),
        why="short runs on data that the test above takes apart",
        mark="long",
    ),
)
def test_short_runs_work_on_every_kind_of_data(kind, monkeypatch):
    if "lazily" in kind:
        monkeypatch.setattr(training_data, "_MAX_COPIED_BYTES", 0)
    data = KINDS[kind]()
    x, y = data if isinstance(data, tuple) else (data, None)
    options = {"batch_size": 8} if y is not None else {}
    if kind == "generator":
        test = keras_lr.lr_find(classifier(), x, steps=12, budget=500, verbose=0)
        assert test.probes is None
        assert any("data ended before" in hint for hint in test.provenance["hints"])
        return
    test = keras_lr.lr_find(classifier(), x, y, steps=40, budget=440, verbose=0, **options)
    assert test.probes is not None and np.isfinite(test.probes.losses).any()


def test_a_single_batch_is_judged_and_trained_on():
    tf = pytest.importorskip("tensorflow")
    source = stream(classifier(), tf.data.Dataset.from_tensor_slices((X, Y)).batch(ROWS))
    held = source.hold_out(30)
    assert rows_of(held[0]) == rows_of(source.draw()) == set(range(ROWS))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the pipeline is TensorFlow's")
def test_short_runs_work_on_a_folder_of_images(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(12):
            image = np.full((4, 4, 3), 20 * index + (9 if label == "b" else 0), "uint8")
            keras.utils.save_img(tmp_path / label / f"{index}.png", image, scale=False)
    data = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(4, 4), batch_size=4, verbose=False
    )
    layers = keras.layers
    scaled = [keras.Input((4, 4, 3)), layers.Rescaling(1 / 255), layers.Flatten()]
    model = keras.Sequential([*scaled, layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    test = keras_lr.lr_find(model, data, steps=30, budget=430, verbose=0)
    assert test.probes is not None
