"""Data as users have it: files, folders, functions, and errors in them."""

import bz2
import gzip
import io
import json
import shutil
import sys
import zipfile
from decimal import Decimal

import command_line
import keras
import numpy as np
import pytest
from command_line import refused

from keras_lr_cli import data_checks
from keras_lr_cli.data import Data, load_data
from keras_lr_cli.errors import BadInput
from keras_lr_cli.tables import Columns, load_table

pytestmark = pytest.mark.long_elsewhere(
    "the command line calls the library, which other tests run on each backend"
)

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    command_line.write_files(folder)
    return folder


@pytest.fixture(scope="module")
def model():
    return command_line.compiled()


X, Y = command_line.arrays()


def same(data, x=X, y=Y):
    np.testing.assert_allclose(data.x, x, rtol=1e-5)
    np.testing.assert_array_equal(data.y, y)


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train"), ("X", "Y")])
def test_npz_holds_x_and_y_under_the_usual_names(tmp_path, model, names):
    arrays = dict(zip(names, (X, Y), strict=True))
    np.savez_compressed(tmp_path / "d.npz", **arrays, x_test=X[:3], y_test=Y[:3])
    same(load_data(str(tmp_path / "d.npz"), model))
    same(load_data(str(tmp_path / "d.npz"), model, validation=True), X[:3], Y[:3])


def test_npz_may_hold_sample_weights(tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y, sample_weight=np.arange(len(X)))
    assert load_data(str(tmp_path / "d.npz"), model).sample_weight[5] == 5


def test_npz_may_hold_an_array_for_each_input(tmp_path):
    left, right = keras.Input((3,), name="left"), keras.Input((5,), name="right")
    output = keras.layers.Dense(4)(keras.layers.concatenate([left, right]))
    model = keras.Model([left, right], output)
    model.compile("sgd", "mse")
    np.savez(tmp_path / "d.npz", right=X[:, 3:], left=X[:, :3], y=np.eye(4)[Y])
    data = load_data(str(tmp_path / "d.npz"), model)
    np.testing.assert_array_equal(data.x["right"], X[:, 3:])
    data_checks.check_data(data, model, "d.npz")
    np.savez(tmp_path / "e.npz", right=X[:, 2:], left=X[:, :3], y=np.eye(4)[Y])
    with pytest.raises(BadInput, match=r"right has shape \(64, 6\).*takes \(None, 5\)"):
        data_checks.check_data(load_data(str(tmp_path / "e.npz"), model), model, "e.npz")


def test_npz_holds_an_array_for_each_output(tmp_path):
    inputs = keras.Input((8,), name="features")
    outputs = [keras.layers.Dense(n, name=name)(inputs) for n, name in ((1, "size"), (4, "kind"))]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ["mse", "sparse_categorical_crossentropy"])
    np.savez(tmp_path / "d.npz", x=X, size=X[:, 0], kind=Y)
    data = load_data(str(tmp_path / "d.npz"), model)
    np.testing.assert_array_equal(data.y["kind"], Y)
    np.testing.assert_array_equal(data.y["size"], X[:, 0])
    np.savez(tmp_path / "e.npz", x=X, kind=Y)
    with pytest.raises(BadInput, match=r"each output \(size, kind\) in the place of y"):
        load_data(str(tmp_path / "e.npz"), model)


def test_npz_says_which_arrays_it_does_not_use(tmp_path, model, capsys):
    np.savez(tmp_path / "d.npz", x=X, y=Y, x_test=X, y_test=Y, sample_weights=Y, mask=Y)
    assert load_data(str(tmp_path / "d.npz"), model).sample_weight is None
    error = capsys.readouterr().err
    assert "Not used" in error and "sample_weights, mask; weights must be named" in error
    np.savez(tmp_path / "d.npz", x=X, y=Y, x_test=X, y_test=Y)
    load_data(str(tmp_path / "d.npz"), model)
    assert not capsys.readouterr().err


def test_npz_with_names_that_differ_in_capitals_takes_the_exact_one(tmp_path, model):
    np.savez(tmp_path / "d.npz", X=X + 1, x=X, Y=Y)
    same(load_data(str(tmp_path / "d.npz"), model))
    np.savez(tmp_path / "d.npz", X_Train=X + 1, X_train=X, y_train=Y)
    with pytest.raises(BadInput, match="holds X_Train and X_train; name one of them x_train"):
        load_data(str(tmp_path / "d.npz"), model)


def test_weights_of_training_are_not_those_of_held_out_data(tmp_path, model):
    parts = {"x": X, "y": Y, "x_val": X, "y_val": Y, "sample_weight": np.arange(len(X))}
    np.savez(tmp_path / "d.npz", **parts)
    assert load_data(str(tmp_path / "d.npz"), model).sample_weight[5] == 5
    assert load_data(str(tmp_path / "d.npz"), model, validation=True).sample_weight is None
    np.savez(tmp_path / "d.npz", **parts, sample_weight_val=np.ones(len(X)))
    assert load_data(str(tmp_path / "d.npz"), model, validation=True).sample_weight[5] == 1


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ones(3), "sample_weight must have a weight for each of the 64 examples; .*(3,)"),
        (np.array(2.0), "sample_weight must have a weight for each"),
        (np.where(np.arange(64) == 7, np.nan, 1), "sample_weight holds NaN .* row 7"),
        (np.array(["a"] * 64), "sample_weight must hold numbers"),
    ],
)
def test_weights_that_do_not_fit_are_refused(model, weights, words):
    with pytest.raises(BadInput, match=words):
        data_checks.check_data(Data(X, Y, weights), model, "d.npz")


class Autoencoder(keras.Model):
    """Makes its own targets in `train_step`, as a VAE does."""

    def __init__(self):
        super().__init__()
        self.outer = keras.layers.Dense(8)

    def call(self, x):
        return self.outer(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(x - y_pred))


def test_a_model_that_makes_its_own_targets_takes_inputs_alone(tmp_path, function, model):
    own = Autoencoder()
    own.compile("sgd")
    np.savez(tmp_path / "d.npz", x_train=X)
    for source in (str(tmp_path / "d.npz"), function("return X")):
        data = load_data(source, own)
        np.testing.assert_array_equal(data.x, X)
        assert data.y is None and data.is_arrays
        data_checks.check_data(data, own, source)
    with pytest.raises(BadInput, match="must hold x and y or x_train and y_train"):
        load_data(str(tmp_path / "d.npz"), model)
    with pytest.raises(BadInput, match="has no examples"):
        np.savez(tmp_path / "none.npz", x=X[:0])
        data = load_data(str(tmp_path / "none.npz"), own)
        data_checks.check_data(data, own, "none.npz")


def test_npy_pair(tmp_path, model):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    same(load_data(f"{tmp_path}/x.npy,{tmp_path}/y.npy", model))
    with pytest.raises(BadInput, match=r"as in x\.npy,y\.npy"):
        load_data(f"{tmp_path}/x.npy", model)
    (tmp_path / "y.txt").write_text("1")
    with pytest.raises(BadInput, match=r"takes two \.npy files with a comma, as in x.npy,y"):
        load_data(f"{tmp_path}/x.npy,{tmp_path}/y.txt", model)


def test_csv(files, model):
    same(load_data(str(files / "model.csv"), model, target="label"))


@pytest.mark.parametrize("end", ["CSV", "csv.gz", "Csv.BZ2", "csv.xz", "csv.zip", "TSV", "tsv.gz"])
def test_capitals_and_compression_of_a_table_do_not_count(files, tmp_path, model, end):
    table = pd.read_csv(files / "model.csv")
    tab = "\t" if "tsv" in end.lower() else ","
    table.to_csv(tmp_path / f"d.{end}", index=False, sep=tab, compression="infer")
    path = str(tmp_path / f"d.{end}")
    same(load_data(path, model, target="label"))
    assert "its columns are: f0, f1" in refused("find", files / "model.keras", "--data", path)
    table.loc[7, "f2"] = np.nan
    table.to_csv(path, index=False, sep=tab, compression="infer")
    with pytest.raises(BadInput, match="'f2' has no value in line 9"):
        load_data(path, model, target="label")


def test_capitals_in_the_ends_of_other_names_do_not_count(tmp_path, model):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    (tmp_path / "d.npz").rename(tmp_path / "D.NPZ")
    same(load_data(str(tmp_path / "D.NPZ"), model))
    for name, array in (("X.NPY", X), ("y.Npy", Y)):
        with open(tmp_path / name, "wb") as file:
            np.save(file, array)
    same(load_data(f"{tmp_path}/X.NPY,{tmp_path}/y.Npy", model))
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])]).assign(label=Y)
    table.to_parquet(tmp_path / "d.Parquet")
    same(load_data(str(tmp_path / "d.Parquet"), model, target="label"))


def test_a_compressed_table_that_cannot_be_read_is_refused(tmp_path, model):
    rows = "".join(f"{i},{i * 7919 % 1000}\n" for i in range(40_000))  # more than one buffer
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(("a,b\n" + rows).encode())[:-9])
    with pytest.raises(BadInput, match=r"^\S*d\.csv\.gz is a damaged compressed file: Comp.*end"):
        load_data(str(tmp_path / "d.csv.gz"), model, target="b")
    with zipfile.ZipFile(tmp_path / "d.csv.zip", "w") as archive:
        archive.writestr("train.csv", "a,b\n1,2\n")
        archive.writestr("test.csv", "a,b\n1,2\n")
    with pytest.raises(BadInput, match="must hold one file; it holds 2: train.csv, test.csv"):
        load_data(str(tmp_path / "d.csv.zip"), model, target="b")


def test_a_table_is_unpacked_by_its_bytes_not_by_its_name(files, tmp_path, model):
    text = (files / "model.csv").read_bytes()
    for name, content in {"plain.csv.gz": text, "packed.csv": bz2.compress(text)}.items():
        (tmp_path / name).write_bytes(content)
        same(load_data(str(tmp_path / name), model, target="label"))


def test_parquet(tmp_path, model):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])]).assign(label=Y)
    table.to_parquet(tmp_path / "d.parquet")
    same(load_data(str(tmp_path / "d.parquet"), model, target="label"))


@pytest.mark.parametrize(
    ("package", "ending"), [("pandas", "csv"), ("pandas", "parquet"), ("pyarrow", "parquet")]
)
def test_missing_package_is_named(tmp_path, model, monkeypatch, package, ending):
    monkeypatch.setitem(sys.modules, package, None)
    if package == "pyarrow":
        monkeypatch.setattr(pd, "read_parquet", lambda path: __import__("pyarrow"))
    (tmp_path / f"d.{ending}").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=f"pip install {package}"):
        load_data(str(tmp_path / f"d.{ending}"), model, target="b")


def test_rows_of_a_table_take_the_shape_of_the_input(files, capsys):
    model = keras.Sequential([keras.Input((2, 4)), keras.layers.Flatten(), keras.layers.Dense(4)])
    assert load_data(str(files / "model.csv"), model, target="label").x.shape == (64, 2, 4)
    assert "(2, 4)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "no column 'label', which --target names; its columns are: a, b."),
        ("a,label\nred,2\n", "columns that are not numbers: a"),
        (
            "a,b,label\nred,x,2\n",
            "a, b; encode them as numbers, or leave them out with --drop a,b",
        ),
        ("a,label\n1,2\n,3\n5,6\n", "the column 'a' has no value in line 3; fill it"),
        ("a,label\n\n1,2\n\n,3\n,6\n", "no value in line 5, and so 1 more"),
        ('a,label\n"1\n",2\n,3\n', "the column 'a' has no value in line 4"),
        ("a,label\n1,2\ninf,3\n", "the column 'a' has infinity in line 3"),
        ("a,label\n1,2\n4,\n", "the column 'label' has no value in line 3"),
        ("a,label\n1,x\n4,NA\n", "'label' has 'NA', which stands for no value, in line 3"),
        ("a,a,label\n1,2,3\n", "several columns named 'a'"),
        ("a,label\n", "a header and no rows"),
        ("1,2\n3,4\n", "it holds numbers"),
        ("a,label\n1,2,3\n", "rows with more cells than its first line"),
        ("a;label\n1,5;2\n1.5;3\n", "columns that are not numbers: a"),
        ("label\n1\n", "no columns but the target"),
        ('a,label\n"1,2\n', "could not be read"),
    ],
)
def test_table_that_does_not_do_is_explained(files, tmp_path, text, words):
    (tmp_path / "d.csv").write_text(text)
    arguments = (files / "model.keras", "--data", tmp_path / "d.csv", "--target", "label")
    assert words in refused("find", *arguments)


NAMES = [f"f{i}" for i in range(X.shape[1])]
KINDS = np.array(["virginica", "setosa", "versicolor", "wild, other"])[Y]


def table(path, separator=",", decimal=".", **options):
    frame = pd.DataFrame(X, columns=NAMES).assign(species=KINDS)
    frame.to_csv(path, sep=separator, decimal=decimal, index=False, **options)
    return str(path)


@pytest.mark.parametrize(
    ("ending", "separator", "decimal", "encoding"),
    [
        ("csv", ",", ".", "utf-8"),
        ("csv", ";", ".", "utf-8-sig"),
        ("csv", ";", ",", "utf-8"),
        ("csv", "\t", ".", "utf-8"),
        ("csv", "\t", ",", "utf-8"),
        ("tsv", "\t", ".", "utf-8-sig"),
    ],
)
def test_text_to_predict_becomes_classes_in_order(
    tmp_path, model, capsys, ending, separator, decimal, encoding
):
    path = table(tmp_path / f"d.{ending}", separator, decimal, encoding=encoding)
    data = load_data(path, model, target="species")
    same(data, y=np.array([2, 0, 1, 3])[Y])
    assert data.classes == ["setosa", "versicolor", "virginica", "wild, other"]
    told = capsys.readouterr().err
    assert "Target 'species': 4 classes setosa=0, versicolor=1, virginica=2" in told
    assert ("decimal commas" in told) == (decimal == ",")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;b\n0,5;1\n1,234;2\n", [0.5, 1.234]),
        ("a;b\n1,234;1\n2,345;2\n", [1.234, 2.345]),  # semicolons: the comma is taken
        ("a;b\n1,234;1\n951;2\n", [1234, 951]),
        ("a\tb\n1,234\t0.5\n2,951\t2\n", [1234, 2951]),
        ('a,b\n"1,234",0.5\n"2,345",2\n', [1234, 2345]),
        ('a,b\n"1,234,567.5",5\n345,2\n', [1234567.5, 345]),
        ('a,b\n"1,234",5\n"2,345",2\n', "'a' has 1,234, which may be 1.234 or 1234"),
        ("a\tb\n1,234\t1\n2,345\t2\n", "'a' has 1,234, which may be 1.234 or 1234"),
        ('a,b\n"1,2",5\n"3,4",2\n', "columns that are not numbers: a"),  # may be lists
    ],
)
def test_commas_in_numbers_are_told_by_the_rest_of_the_table(tmp_path, capsys, text, expected):
    (tmp_path / "d.csv").write_text(text)
    if isinstance(expected, str):
        with pytest.raises(BadInput, match=expected):
            load_data(str(tmp_path / "d.csv"), None, target="b")
        # A column that is not used does not matter.
        with pytest.raises(BadInput, match="no columns but the target"):
            load_data(str(tmp_path / "d.csv"), None, target="b", drop="a")
        return
    read = load_data(str(tmp_path / "d.csv"), None, target="b")
    np.testing.assert_allclose(read.x[:, 0], expected, rtol=1e-6)
    decimal = expected[1] < 100
    words = "decimal commas" if decimal else "commas between thousands"
    assert f"d.csv is read with {words}." in capsys.readouterr().err


@pytest.mark.parametrize("header", ['"a;b";"c,d,e,f";label', "\ufeffa;b,c;label"])
def test_separator_is_that_of_the_header_outside_of_quotes(tmp_path, header):
    (tmp_path / "d.csv").write_text(f"{header}\n1;2;0\n3;4;1\n", encoding="utf-8")
    same(load_data(str(tmp_path / "d.csv"), None, target="label"), [[1, 2], [3, 4]], [0, 1])


@pytest.mark.parametrize(
    ("units", "loss", "shape"),
    [
        (4, "categorical_crossentropy", (64, 4)),
        (5, "categorical_crossentropy", (64, 5)),
        (4, "sparse_categorical_crossentropy", (64,)),
        (1, "binary_crossentropy", (64, 1)),
    ],
)
def test_classes_suit_the_loss(tmp_path, units, loss, shape):
    model = command_line.compiled(loss, units=units)
    path = tmp_path / "d.csv"
    frame = pd.DataFrame(X, columns=NAMES)
    frame.assign(species=np.where(Y > 1, "yes", "no") if units == 1 else KINDS).to_csv(path)
    data = load_data(str(path), model, target="species", drop="Unnamed: 0")
    assert data.y.shape == shape
    np.testing.assert_array_equal(
        data.y[:, 0] if units == 1 else data.y.argmax(1) if data.y.ndim > 1 else data.y,
        Y > 1 if units == 1 else np.array([2, 0, 1, 3])[Y],
    )
    data_checks.check_data(data, model, "it")


def test_more_classes_than_outputs_are_refused(tmp_path):
    path = table(tmp_path / "d.csv")
    with pytest.raises(BadInput, match="'species' has 4 classes but the model has only 3 outputs"):
        load_data(path, command_line.compiled(units=3), target="species")
    with pytest.raises(BadInput, match="4 classes; a model with binary_crossentropy has two"):
        load_data(path, command_line.compiled("binary_crossentropy", units=1), target="species")


def test_held_out_table_has_the_classes_of_the_training_data(tmp_path, model):
    path = table(tmp_path / "d.csv")
    classes = load_data(path, model, target="species").classes
    held_out = tmp_path / "v.csv"
    frame = pd.DataFrame(X[:2], columns=NAMES).assign(species=["versicolor", "setosa"])
    frame.to_csv(held_out, index=False)
    data = load_data(str(held_out), model, target="species", classes=classes, validation=True)
    assert data.y.tolist() == [1, 0]
    frame.assign(species="fern").to_csv(held_out, index=False)
    with pytest.raises(BadInput, match="has 'fern', which is not a class of the training data"):
        load_data(str(held_out), model, target="species", classes=classes, validation=True)


def test_columns_are_chosen_in_the_order_that_is_asked_for(tmp_path, model):
    path = table(tmp_path / "d.csv")
    labels = np.array([2, 0, 1, 3])[Y]
    same(load_data(path, model, target="species", drop="f0,f5"), X[:, [1, 2, 3, 4, 6, 7]], labels)
    same(load_data(path, model, target="species", features="f3, f1"), X[:, [3, 1]], labels)
    pd.DataFrame({"a,b": [1.0], "c d": [2.0], "y": [3]}).to_csv(tmp_path / "q.csv", index=False)
    same(load_data(str(tmp_path / "q.csv"), None, target="y", features='c d,"a,b"'), [[2, 1]], [3])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": "f0,f9"}, "no column 'f9', which --features names; its columns are: f0, f1"),
        ({"drop": "f9"}, "no column 'f9', which --drop names"),
        ({"features": "f0,species"}, "--features names 'species', which is the target"),
        ({"drop": "species"}, "--drop names 'species', which is the target"),
        ({"features": "f0,f1", "drop": "f1"}, "--features and --drop both name 'f1'"),
        ({"features": "f0,,f1"}, "--features takes names with commas between them; got 'f0,,f1'"),
        ({"features": "f0,f0"}, "--features names 'f0' twice"),
        ({"drop": ",".join(NAMES)}, "no columns but the target 'species'"),
    ],
)
def test_columns_that_cannot_be_chosen_are_refused(tmp_path, model, options, words):
    with pytest.raises(BadInput, match=words):
        load_data(table(tmp_path / "d.csv"), model, target="species", **options)


def test_columns_belong_to_tables(files, model):
    with pytest.raises(BadInput, match="--drop chooses columns of a table; --data .*npz is not"):
        load_data(str(files / "model.npz"), model, drop="f0")


def test_a_first_column_that_counts_the_rows_is_not_a_feature(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    frame = pd.DataFrame({"a": [1.5, 2.5, 4.0], "label": [0.0, 1.0, 2.0]})
    for start, separator in ((0, ","), (1, ";")):
        frame.index = range(start, start + 3)
        frame.to_csv(tmp_path / "d.csv", sep=separator)
        with pytest.raises(
            BadInput, match='counts the rows; leave it out with --drop "Unnamed: 0"'
        ):
            load_data(str(tmp_path / "d.csv"), model, target="label")
    data = load_data(str(tmp_path / "d.csv"), model, target="label", features="Unnamed: 0,a")
    np.testing.assert_allclose(data.x, [[1, 1.5], [2, 2.5], [3, 4.0]])
    frame.index = [3.5, 1, 2]  # a feature that lost its name
    frame.to_csv(tmp_path / "d.csv")
    assert load_data(str(tmp_path / "d.csv"), model, target="label").x[0, 0] == 3.5


def test_spaces_around_a_class_do_not_make_another_class(tmp_path, model):
    (tmp_path / "d.csv").write_text(
        ",".join(f"f{i}" for i in range(8)) + ", label\n" + "1,2,3,4,5,6,7,8, cat\n"
        "1,2,3,4,5,6,7,8,cat \n1,2,3,4,5,6,7,8,ant\n"
    )
    data = load_data(str(tmp_path / "d.csv"), model, target="label")
    assert data.classes == ["ant", "cat"]
    np.testing.assert_array_equal(data.y, [1, 1, 0])


def test_categories_and_decimals_of_a_database_are_numbers(tmp_path, model):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X[:3].round(2), columns=[f"f{i}" for i in range(8)])
    expected = frame.to_numpy().copy()
    frame["f1"] = [Decimal(f"{value:.2f}") for value in frame["f1"]]
    frame["label"] = pd.Categorical([2, 10, 1])
    frame.to_parquet(tmp_path / "d.parquet")
    data = load_data(str(tmp_path / "d.parquet"), model, target="label")
    np.testing.assert_array_equal(data.y, [2, 10, 1])  # as text, 10 comes before 2
    np.testing.assert_allclose(data.x, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b,c,label\n1,2,3,0\n", "takes 8 numbers for each row; .* has 3 columns .*: a, b, c"),
        ("größe,label\n1,2\n".encode("latin-1"), "not text in UTF-8; save it"),
        ("a,label\n1,2\n".encode("utf-16"), "not text in UTF-8; save it"),
        (b"a,label\n1,None\n", "'label' has 'None', which stands for no value, in line 2"),
        (b"sep=,\na,b,label\n1,2,3\n", "rows with more cells than its first line"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, model, content, words):
    (tmp_path / "d.csv").write_bytes(content)
    target = "sep=" if content.startswith(b"sep") else "label"
    with pytest.raises(BadInput, match=words):
        data = load_data(str(tmp_path / "d.csv"), model, target=target)
        data_checks.check_data(data, model, "d.csv")


def test_columns_go_to_the_inputs_of_their_names(tmp_path):
    inputs = [keras.Input((1,), name=name) for name in ("f3", "f1")]
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.concatenate(inputs)))
    path = table(tmp_path / "d.csv")
    with pytest.raises(BadInput, match="not inputs of the model; leave them out with --drop f0,f2"):
        load_data(path, model, target="species")
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = load_data(path, model, target="species", features="f1,f3")
    np.testing.assert_allclose(data.x["f3"], X[:, 3:4], rtol=1e-5)
    assert list(data.x) == ["f3", "f1"]


def test_find_takes_a_table_with_text_and_says_so_in_its_json(files, tmp_path):
    path = table(tmp_path / "d.csv")
    options = ("--data", path, "--target", "species", "--validation", path, "--steps", 12)
    result = command_line.run("find", files / "model.keras", *options, "--json")
    assert result.exit_code in (0, 1), result.stderr
    assert "Target 'species': 4 classes" in result.stderr
    classes = json.loads(result.stdout)["classes"]
    assert classes == ["setosa", "versicolor", "virginica", "wild, other"]


def test_table_without_target_asks_for_it(files):
    message = refused("find", files / "model.keras", "--data", files / "model.csv")
    assert "--target" in message


# Images and text by class


@pytest.fixture
def pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for label, name in enumerate(("cat", "dog", "emu")):
        (tmp_path / name).mkdir()
        for number in range(4 - label):
            pixels = np.full((9, 7, 3), 40 * label + number, dtype="uint8")
            image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a class")
    return tmp_path


def cnn(units=3, loss="sparse_categorical_crossentropy", channels=3, size=(6, 5)):
    layers = [keras.Input((*size, channels)), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*layers, keras.layers.Dense(units)])
    model.compile("sgd", loss)
    return model


def test_images_come_in_batches_of_the_size_that_the_model_wants(pictures):
    data = load_data(str(pictures), cnn(), batch_size=4)
    batches = [data.x[i] for i in range(len(data.x))]
    assert [x.shape for x, _ in batches] == [(4, 6, 5, 3), (4, 6, 5, 3), (1, 6, 5, 3)]
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0, 0, 0] // 40, y)
    assert sorted(np.concatenate([y for _, y in batches])) == [0] * 4 + [1] * 3 + [2] * 2


def test_labels_of_images_suit_the_loss(pictures):
    y = load_data(str(pictures), cnn(3, "categorical_crossentropy"), batch_size=9).x[0][1]
    np.testing.assert_array_equal(y.sum(axis=0), [4, 3, 2])
    with pytest.raises(BadInput, match="3 classes"):
        load_data(str(pictures), cnn(1, "binary_crossentropy"))
    with pytest.raises(BadInput, match="3 classes but the model has only 2 outputs"):
        load_data(str(pictures), cnn(2))


def test_images_in_grey_for_a_model_in_grey(pictures):
    assert load_data(str(pictures), cnn(channels=1)).x[0][0].shape[1:] == (6, 5, 1)


def test_images_of_any_size(pictures, capsys):
    model = cnn(size=(None, None))
    assert load_data(str(pictures), model, batch_size=1).x[0][0].shape == (1, 224, 224, 3)
    assert "224 x 224" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(6, 5), (9, 7)], ids=["scaled", "as it is"])
def test_damaged_image_is_named(pictures, size):
    path = pictures / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:45])
    data = load_data(str(pictures), cnn(size=size), batch_size=9)
    with pytest.raises(BadInput, match=r"cat/0\.png is not a readable image"):
        data.x[0]


def test_folder_for_a_model_of_rows_names_what_the_model_wants(pictures, model):
    with pytest.raises(BadInput, match=r"the model takes \(None, 8\)"):
        load_data(str(pictures), model)


def test_folder_without_classes_is_explained(tmp_path, model):
    with pytest.raises(BadInput, match=r"one folder for each class, .*; it has no folders\.$"):
        load_data(str(tmp_path), model)
    (tmp_path / "a").mkdir()
    with pytest.raises(BadInput, match=r"; it has 1 folder and no such files in them\.$"):
        load_data(str(tmp_path), model)


def test_a_folder_of_one_class_is_explained(pictures):
    with pytest.raises(BadInput, match="it has 4 such files and no folders; pass the folder that"):
        load_data(str(pictures / "cat"), cnn())


def test_files_of_another_kind_in_a_class_are_told(pictures, capsys):
    (pictures / "cat" / "notes.txt").write_text("text")
    (pictures / "dog" / "0.heic").write_bytes(b"heic")
    data = load_data(str(pictures), cnn(), batch_size=9)
    assert "2 other files are left out, such as cat/notes.txt." in capsys.readouterr().err
    np.testing.assert_array_equal(np.bincount(data.x[0][1]), [4, 3, 2])


def test_held_out_folder_has_the_classes_of_the_training_data(pictures, tmp_path_factory, capsys):
    data = load_data(str(pictures), cnn(), batch_size=9)
    assert data.classes == ["cat", "dog", "emu"]
    assert "cat=0 (4), dog=1 (3), emu=2 (2)" in capsys.readouterr().err
    held_out = tmp_path_factory.mktemp("held_out")
    shutil.copytree(pictures / "emu", held_out / "emu")
    given = load_data(str(held_out), cnn(), batch_size=9, classes=data.classes, validation=True)
    np.testing.assert_array_equal(given.x[0][1], [2, 2])
    (held_out / "emu").rename(held_out / "eel")
    with pytest.raises(BadInput, match="class eel, which is not a class of the training data"):
        load_data(str(held_out), cnn(), classes=data.classes, validation=True)


def test_hidden_folders_and_files_are_no_classes_or_images(pictures):
    (pictures / "__MACOSX" / "cat").mkdir(parents=True)
    (pictures / "__MACOSX" / "cat" / "0.png").write_bytes(b"Mac OS X")
    (pictures / "cat" / "._0.png").write_bytes(b"Mac OS X")
    data = load_data(str(pictures), cnn(), batch_size=9)
    assert data.classes == ["cat", "dog", "emu"]
    np.testing.assert_array_equal(np.bincount(data.x[0][1]), [4, 3, 2])


def test_parts_of_a_data_set_are_not_classes(pictures, tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    for name in ("train", "Test"):
        shutil.copytree(pictures, parts / name)
    with pytest.raises(BadInput, match="Test, train, which are parts of a data set.*parts.*/Test"):
        load_data(str(parts), cnn())
    assert load_data(str(parts / "train"), cnn()).classes == ["cat", "dog", "emu"]


class OfMine(keras.losses.SparseCategoricalCrossentropy):
    """A loss that users derive from one of Keras."""


def test_labels_suit_a_loss_of_the_user(pictures, capsys):
    data = load_data(str(pictures), cnn(loss=OfMine()), batch_size=9)
    np.testing.assert_array_equal(np.bincount(data.x[0][1]), [4, 3, 2])
    assert "one-hot" not in capsys.readouterr().err
    data = load_data(str(pictures), cnn(loss=lambda y, p: p), batch_size=9)
    np.testing.assert_array_equal(data.x[0][1].sum(axis=0), [4, 3, 2])
    assert "not one of Keras; it gets a one-hot row" in capsys.readouterr().err


@pytest.fixture
def texts(tmp_path):
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.txt").write_text(f"a {name} film {number}")
    return tmp_path


def test_text_is_refused_by_a_model_of_numbers(texts, model):
    with pytest.raises(BadInput, match="TextVectorization"):
        load_data(str(texts), model)


class Task(keras.Model):
    """As a task of KerasHub: `fit` takes texts, which the preprocessor turns into numbers."""

    def __init__(self, preprocessor):
        super().__init__()
        self.preprocessor = preprocessor


@pytest.mark.parametrize("preprocessor", [len, None])
def test_a_column_of_texts_feeds_a_model_with_a_preprocessor(tmp_path, preprocessor):
    path = tmp_path / "reviews.csv"
    path.write_text('text,label\n"good, short",pos\nbad,neg\n')
    chosen, model = Columns("label"), Task(preprocessor)
    if preprocessor is None:
        with pytest.raises(BadInput, match="columns that are not numbers: text"):
            load_table(str(path), chosen, model)
        return
    x, _, classes, _ = load_table(str(path), chosen, model)
    assert x.dtype.kind == "U" and x.tolist() == ["good, short", "bad"]
    assert classes == ["neg", "pos"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strings need TensorFlow")
def test_text_trains_a_model_of_text(texts, tmp_path):
    vectors = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    vectors.adapt(["a good film", "a bad film"])
    layers = [keras.Input((), dtype="string"), vectors, keras.layers.Embedding(20, 4)]
    layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile("adam", "binary_crossentropy")
    model.save(tmp_path / "text.keras")
    result = command_line.run("find", tmp_path / "text.keras", "--data", texts, "--steps", 20)
    assert result.exit_code in (0, 1), result.stderr
    assert "Cost" in result.stdout


# Functions


@pytest.fixture
def function(tmp_path, monkeypatch):
    """Write a module with a function `data` that ends in this line, and name it."""
    monkeypatch.chdir(tmp_path)

    def written(line):
        name = f"data_{abs(hash((line, tmp_path)))}"
        text = f"import command_line\nX, Y = command_line.arrays()\ndef data():\n    {line}\n"
        (tmp_path / f"{name}.py").write_text(text)
        return f"{name}:data"

    return written


def test_function_returns_arrays(function, model):
    same(load_data(function("return X, Y"), model))


def test_function_returns_a_data_set(function, model):
    spec = function("return command_line.Batches()")
    data = load_data(spec, model)
    assert not data.is_arrays
    data_checks.check_data(data, model, spec)


@pytest.mark.parametrize(
    ("option", "data", "words"),
    [
        (("--target", "y"), "model.npz", "--target chooses a column of a table"),
        (("--batch-size", 4), "own_data:make", "own_data:make, which has batches of its own"),
    ],
)
def test_an_option_that_the_data_do_not_take_is_refused(
    files, tmp_path, monkeypatch, option, data, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_data.py").write_text(
        "import command_line\ndef make():\n    return command_line.Batches()\n"
    )
    data = data if ":" in data else files / data
    assert words in refused("find", files / "model.keras", "--data", data, *option)


def test_an_output_does_not_overwrite_the_data(files, tmp_path):
    for name, values in (("x", X), ("y", Y)):
        np.save(tmp_path / f"{name}.npy", values)
    pair = f"{tmp_path / 'x.npy'},{tmp_path / 'y.npy'}"
    line = refused("find", files / "model.keras", "--data", pair, "--save", tmp_path / "y.npy")
    assert "--save" in line and "would overwrite an input" in line
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), Y)
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (picture := tmp_path / "images" / "cat" / "0.png").write_bytes(b"an image")
    line = refused("find", files / "model.keras", "--data", tmp_path / "images", "--plot", picture)
    assert "would overwrite an input" in line


def test_generator_is_not_read_before_the_run(function, model):
    data = load_data(function("return ((X[i:i+8], Y[i:i+8]) for i in range(0, 64, 8))"), model)
    data_checks.check_data(data, model, "it")
    assert len(list(data.x)) == 8


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("return None", "returned NoneType"),
        ("return X", "without targets"),
        ("return 5", "returned int"),
        ("raise KeyError('x')", "raised KeyError"),
        ("return X[:, :5], Y", "the model takes (None, 8)"),
    ],
)
def test_function_that_gives_no_data_is_explained(files, function, line, words):
    assert words in refused("find", files / "model.keras", "--data", function(line))


# What is wrong with arrays


def bad(change):
    x, y = X.copy(), Y.copy()
    return change(x, y)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((X[:, :5], Y), ["(64, 5)", "(None, 8)"]),
        ((X[:50], Y), ["x has 50, y has 64"]),
        ((X[:0], Y[:0]), ["no examples"]),
        ((X, np.eye(4)[Y]), ["(64, 4)", "categorical_crossentropy"]),
        ((X, Y + 1), ["labels from 1 to 4", "4 classes"]),
        ((X, Y - 1), ["labels from -1 to 2"]),
        ((X, Y + 0.5), ["fractions"]),
        ((X.astype(str), Y), ["x must hold numbers; it holds text"]),
        ((X, np.array(["cat"] * 64)), ["y must hold numbers; it holds text"]),
        ((X + 1j, Y), ["x must hold numbers; it holds complex64"]),
        ((np.where(X == X[7, 3], np.nan, X), Y), ["x holds NaN or infinity", "row 7"]),
        ((np.where(X == X[9, 3], np.inf, X), Y), ["x holds NaN or infinity", "row 9"]),
        ((X, np.where(np.arange(64) == 5, np.nan, Y)), ["y holds NaN or infinity", "row 5"]),
        ((np.float32(3), np.float32(3)), ["no examples"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_both_sides_named(files, tmp_path, arrays, words):
    np.savez(tmp_path / "d.npz", x=arrays[0], y=arrays[1])
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.npz")
    for word in words:
        assert word in message


@pytest.mark.parametrize("option", ["--data", "--validation"])
def test_validation_data_is_checked_too(files, tmp_path, option):
    np.savez(tmp_path / "d.npz", x=X, y=Y + 3)
    message = refused("find", files / "model.keras", option, tmp_path / "d.npz")
    assert "labels from 3 to 6" in message


@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        ("categorical_crossentropy", Y, "sparse_categorical_crossentropy"),
        ("categorical_crossentropy", 2 * np.eye(4)[Y], "0 to 2; .* takes values in .0, 1"),
        ("mse", np.zeros((64, 3)), r"\(64, 3\); the model's output is \(None, 4\)"),
    ],
)
def test_targets_must_suit_the_loss(loss, y, words):
    with pytest.raises(BadInput, match=words):
        data_checks.check_data(command_line_data(X, y), command_line.compiled(loss), "it")


@pytest.mark.parametrize(
    ("units", "loss", "y"),
    [
        (1, "mse", Y),
        (1, "mse", Y[:, None]),
        (1, "binary_crossentropy", Y > 1),
        (4, "mse", np.eye(4)[Y]),
        (4, "categorical_crossentropy", np.eye(4, dtype=bool)[Y]),
        (4, "sparse_categorical_crossentropy", Y[:, None]),
        (4, "sparse_categorical_crossentropy", Y.astype("float32")),
    ],
)
def test_targets_that_fit_takes_are_taken(units, loss, y):
    model = command_line.compiled(loss, units=units)
    data_checks.check_data(command_line_data(X, y), model, "it")
    model.fit(X, y, verbose=0)


def command_line_data(x, y):
    from keras_lr_cli.data import Data

    return Data(x, y)


def test_ignored_class_is_no_label_out_of_range():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    data_checks.check_data(command_line_data(X, Y - 1), command_line.compiled(loss), "it")


def test_tokens_beyond_the_embedding_are_refused():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Embedding(10, 2)])
    model.compile("sgd", "mse")
    tokens = np.arange(64 * 8).reshape(64, 8) % 11
    with pytest.raises(BadInput, match="tokens from 0 to 10; .* takes 0 to 9"):
        data_checks.check_data(command_line_data(tokens, np.zeros((64, 8, 2))), model, "it")


# Files that are not what they say


def test_expected_names_and_those_present_are_listed(files, tmp_path):
    np.savez(tmp_path / "d.npz", images=X, labels=Y)
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.npz")
    assert "must hold x and y or x_train and y_train; it holds images, labels" in message


def test_pickled_objects_are_not_loaded(files, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "d.npz", x=np.array([Trap()] * 64), y=Y)
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.npz")
    assert "Python objects" in message
    assert not (tmp_path / "sprung").exists()


def test_array_that_claims_more_than_its_file_is_refused_unread(files, tmp_path):
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 8)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 64)
        archive.writestr("y.npy", header.getvalue() + b"\0" * 64)
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.npz")
    assert "its header names the shape (1000000000000, 8)" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_npz_is_refused(files, tmp_path, share):
    content = (files / "model.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(content[: int(share * len(content))])
    assert "d.npz" in refused("find", files / "model.keras", "--data", tmp_path / "d.npz")


def test_unknown_kind_of_file_is_refused(files, tmp_path):
    (tmp_path / "d.xlsx").write_text("x")
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.xlsx")
    assert "unknown kind" in message and ".npz" in message


def test_labels_of_text_in_an_array_have_a_way_out(files, tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.array(list("abcd"))[Y])
    message = refused("find", files / "model.keras", "--data", tmp_path / "d.npz")
    assert "it holds text. Encode it as integers, as by np.unique(y, return_inverse=" in message


def test_without_data_the_file_beside_the_model_is_looked_for(files, tmp_path):
    (tmp_path / "alone.keras").write_bytes((files / "model.keras").read_bytes())
    message = refused("find", tmp_path / "alone.keras")
    assert "alone.npz" in message and "(None, 8)" in message and "(None, 4)" in message


@pytest.mark.parametrize("batch", [None, 16])
def test_saved_data_set_is_read_in_batches(files, tmp_path, batch):
    tf = pytest.importorskip("tensorflow")
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    (dataset if batch is None else dataset.batch(batch)).save(str(tmp_path / "saved"))
    data = load_data(str(tmp_path / "saved"), command_line.compiled(), batch_size=8)
    first = next(iter(data.x))
    assert first[0].shape == (batch or 8, 8) and len(data.x) == 64 // (batch or 8)
    options = ("--data", tmp_path / "saved", "--steps", 12)
    assert "Cost" in command_line.run("find", files / "model.keras", *options).stdout
    tf.data.Dataset.from_tensor_slices(X).save(str(tmp_path / "alone"))
    message = refused("find", files / "model.keras", "--data", tmp_path / "alone")
    assert "must hold pairs (x, y)" in message
