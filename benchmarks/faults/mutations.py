"""Damage to files: flipped bytes, and well-formed files with wrong content.

`damaged(content, kind, chance)` returns a file of that kind with damage drawn from `chance`, a
`random.Random`. Half of the damage is to bytes of any kind. The other half depends on the kind: a
value of a JSON file becomes a list nested a hundred thousand deep, a member of an archive is
damaged and packed again with the right checksum, a cell of a database gets another type. A reader
that checks its format detects wrong bytes at once; this half gets past that check. The tests use it
too.
"""

from __future__ import annotations

import io
import json
import random
import re
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

# JSON that replaces a value, as text: `json.dumps` cannot write all of it.
ODD_JSON = (
    "null", "true", "false", "0", "-1", "2.5", "1e308", "1e999", "-1e999", "NaN", "Infinity",
    "1" + "0" * 400, "1" + "0" * 6000, '""', '"x"', '"NaN"', '"\\ud800"', '"\\u0000"',
    '"' + "long " * 5000 + '"', "[]", "{}", "[[]]", "[1, [2]]", '{"a": 1}', '[null, "x"]',
    "[" * 100_000 + "]" * 100_000,
)  # fmt: skip
ODD_NAMES = ("", "x", "loss", "\ud800", "\0", "a" * 3000, "__class__", "0")
ODD_CELLS = (
    "", "x", "nan", "inf", "-1", "1e999", "9" * 400, "9" * 5000, '"', "'", ",", ";", "\0",
    "\ud800", "1,5", "[1]", "True", "é", "=1+1", "long " * 5000, "tf.Tensor(1.0, shape=())",
)  # fmt: skip
ODD_SHAPES = ("()", "(0,)", "(-1,)", "(2**62,)", f"({10**12}, {10**12})", "(1.5,)", "None", "(64,)")
ODD_DTYPES = ("'<f8'", "'|O'", "'<U9'", "'|V8'", "'<c16'", "'>i8'", "'<M8[s]'", "'|b1'", "'?'", "3")
TOKEN = "@@odd@@"


def damaged(content: bytes, kind: str, chance: random.Random) -> bytes:
    """Damage the content once, sometimes twice.

    Args:
        content: A whole file.
        kind: A name in `INSIDE`; for any other only bytes are damaged.
        chance: The source of randomness.
    """
    inside = INSIDE.get(kind)
    if inside is not None and chance.random() < 0.5:
        content = inside(content, chance)
        if chance.random() < 0.9:
            return content
    return _bytes(content, chance)


# Bytes


def _bytes(content: bytes, chance: random.Random) -> bytes:
    return chance.choices(BYTES, weights=(8, 4, 2, 2, 2, 1, 1, 1, 1, 1))[0](content, chance)


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20]) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut_short(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _part(content: bytes, chance: random.Random, longest: int = 400) -> tuple[int, int]:
    begin = chance.randrange(len(content) + 1)
    return begin, min(len(content), begin + chance.randint(1, longest))


def _delete(content: bytes, chance: random.Random) -> bytes:
    begin, end = _part(content, chance)
    return content[:begin] + content[end:]


def _repeat(content: bytes, chance: random.Random) -> bytes:
    begin, end = _part(content, chance)
    return content[:end] + content[begin:end] * chance.choice([1, 1, 50]) + content[end:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(content) + 1)
    return content[:begin] + chance.randbytes(chance.choice([1, 4, 100])) + content[begin:]


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    begin, end = _part(content, chance)
    return content[:begin] + chance.choice([b"\0", b"\xff"]) * (end - begin) + content[end:]


def _swap(content: bytes, chance: random.Random) -> bytes:
    a, b, c = sorted(chance.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _empty(content: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"", b"\n", b" ", b"\0" * 1000])


def _noise(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(min(len(content), 2000))


def _encode(content: bytes, chance: random.Random) -> bytes:
    """Save the text with another encoding and other line ends, as some editors do."""
    text = content.decode("utf-8", "surrogateescape")
    encoding, ends = chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"]), "\n"
    if encoding == "latin-1":
        text, ends = "é" + text, chance.choice(["\r\n", "\r"])
    return text.replace("\n", ends).encode(encoding, "replace")


BYTES = (
    _flip, _cut_short, _delete, _repeat, _insert, _overwrite, _swap, _empty, _noise, _encode
)  # fmt: skip


# Structured text


def _json(content: bytes, chance: random.Random) -> bytes:
    try:
        root = [json.loads(content)]
    except ValueError:
        return _bytes(content, chance)
    odd = chance.choice(ODD_JSON)
    holders = list(_holders(root))
    # A list of a thousand numbers is one place among others, not a thousand.
    holder = chance.choice(holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return _bytes(content, chance)
    key, other = chance.choice(keys), chance.choice(keys)
    action = chance.choice(["odd", "odd", "delete", "swap", "wrap", "twice", "rename"])
    if action == "odd" or holder is root:
        holder[key] = TOKEN
    elif action == "delete":
        del holder[key]
    elif action == "swap":
        holder[key], holder[other] = holder[other], holder[key]
    elif action == "wrap":
        holder[key] = [holder[key]]
    elif action == "twice" and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif isinstance(holder, dict):
        holder[chance.choice(ODD_NAMES)] = holder.pop(key)
    return json.dumps(root[0]).replace(f'"{TOKEN}"', odd).encode("utf-8", "replace")


def _holders(value):
    """Every list and dictionary in a value."""
    if isinstance(value, (list, dict)):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _holders(part)


def _lines(content: bytes, chance: random.Random) -> bytes:
    """JSON lines: one of them damaged, lost, doubled or moved."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    place, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    action = chance.choice(["damage", "damage", "damage", "lose", "twice", "swap"])
    if action == "damage":
        lines[place] = _json(lines[place], chance).replace(b"\n", b" ") + b"\n"
    elif action == "lose":
        del lines[place]
    elif action == "twice":
        lines.insert(other, lines[place])
    else:
        lines[place], lines[other] = lines[other], lines[place]
    return b"".join(lines)


def _table(content: bytes, chance: random.Random) -> bytes:
    rows = [line.split(",") for line in content.decode("utf-8", "replace").splitlines()]
    if not rows:
        return content
    row = chance.choice([rows[0], chance.choice(rows), chance.choice(rows)])
    cell = chance.randrange(len(row))
    action = chance.choice(["odd", "odd", "lose", "more", "row twice", "column twice", "separator"])
    separator = ","
    if action == "odd":
        row[cell] = chance.choice(ODD_CELLS)
    elif action == "lose":
        del row[cell]
    elif action == "more":
        row.append(chance.choice(ODD_CELLS))
    elif action == "row twice":
        rows.insert(chance.randrange(len(rows)), row)
    elif action == "column twice":
        rows[0][cell] = rows[0][0]
    else:
        separator = chance.choice([";", "\t", "|", ", "])
    return ("\n".join(separator.join(row) for row in rows) + "\n").encode("utf-8", "replace")


# Archives, arrays, databases: damaged inside, valid outside


def _zip(content: bytes, chance: random.Random) -> bytes:
    """A member lost, doubled, renamed, with the content of another, or damaged by its kind."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError):
        return _bytes(content, chance)
    place = chance.randrange(len(members))
    name, inner = members[place]
    action = chance.choice(["damage"] * 6 + ["lose", "twice", "rename", "other"])
    if action == "damage":
        ending = name.rpartition(".")[2]
        members[place] = (name, damaged(inner, {"h5": "h5"}.get(ending, ending), chance))
    elif action == "lose":
        del members[place]
    elif action == "twice":
        members.append((name, _flip(inner, chance)))
    elif action == "rename":
        members[place] = (chance.choice(["../up.npy", "/tmp/x", "X.npy", name.upper()]), inner)
    else:
        members[place] = (name, chance.choice(members)[1])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", chance.choice([0, zipfile.ZIP_DEFLATED])) as archive:
        for name, inner in members:
            _write_member(archive, name, inner)
    return packed.getvalue()


def _write_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are intended
        archive.writestr(name, content)


def _npy(content: bytes, chance: random.Random) -> bytes:
    """The header of an array: shape, type, order."""
    header, end = content[10:].partition(b"\n")[0].decode("latin-1"), content.index(b"\n") + 1
    action = chance.choice(["shape", "dtype", "order", "key", "length"])
    if action == "shape":
        shape = chance.choice(ODD_SHAPES)
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape}", header)
    elif action == "dtype":
        dtype = chance.choice(ODD_DTYPES)
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {dtype}", header)
    elif action == "order":
        header = header.replace("False", chance.choice(["True", "None", "1"]))
    elif action == "key":
        header = header.replace("'shape'", chance.choice(["'form'", "'descr'", "shape"]))
    body = content[end:]
    if action == "length":
        body = body[: chance.randrange(len(body) + 1)] * chance.choice([1, 3])
    header = header.rstrip() + "\n"
    return content[:8] + struct.pack("<H", len(header)) + header.encode("latin-1") + body


def _h5(content: bytes, chance: random.Random) -> bytes:
    """An attribute with damaged JSON, an array of another shape or type, a lost group."""
    import h5py
    import numpy as np

    buffer = io.BytesIO(content)
    try:
        with h5py.File(buffer, "r+") as file:
            groups: list[str] = []
            file.visit(groups.append)
            texts = [name for name in ("model_config", "training_config") if name in file.attrs]
            arrays = [name for name in groups if isinstance(file[name], h5py.Dataset)]
            if texts and chance.random() < 0.6:
                name = chance.choice(texts)
                value = file.attrs[name]
                text = value if isinstance(value, bytes) else str(value).encode()
                kind = "json" if chance.random() < 0.8 else ""
                file.attrs[name] = np.bytes_(damaged(text, kind, chance) or b" ")
                return _closed(file, buffer)
            if not groups:
                return content
            name = chance.choice(arrays or groups)
            value = chance.choice(["lose", "shape", "type", "nan", "attribute"])
            if value == "attribute":
                owner = file[chance.choice(groups)]
                if owner.attrs:
                    owner.attrs[chance.choice(list(owner.attrs))] = chance.choice([0, "x", [1.5]])
                return _closed(file, buffer)
            if value == "lose":
                name = chance.choice(groups)
            old = file[name]
            shape = getattr(old, "shape", ())
            del file[name]
            if value == "shape":
                file[name] = np.zeros((*shape, 2), "float32")
            elif value == "type":
                file[name] = np.full(shape, b"text")
            elif value == "nan":
                file[name] = np.full(shape, np.nan, "float32")
            return _closed(file, buffer)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return _bytes(content, chance)


def _closed(file, buffer: io.BytesIO) -> bytes:
    file.close()
    return buffer.getvalue()


def _sqlite(content: bytes, chance: random.Random) -> bytes:
    """A cell with another value, a lost row or table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "damaged.sqlite3")
        path.write_bytes(content)
        database = sqlite3.connect(path)
        try:
            tables = database.execute("select name from sqlite_master where type = 'table'")
            filled = [
                name for (name,) in tables.fetchall()
                if database.execute(f"select count(*) from {name}").fetchone()[0]
            ]  # fmt: skip
            table = chance.choice(filled)
            columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
            rows = [row[0] for row in database.execute(f"select rowid from {table}")]
            row, column = chance.choice(rows), chance.choice(columns)
            action = chance.choice(["json", "json", "odd", "odd", "lose row", "lose table"])
            if action == "lose table":
                database.execute(f"drop table {table}")
            elif action == "lose row":
                database.execute(f"delete from {table} where rowid = ?", [row])
            else:
                (old,) = database.execute(
                    f"select {column} from {table} where rowid = ?", [row]
                ).fetchone()
                new = chance.choice([None, -1, 10**15, 2.5, "", "x", "\0", b"\xff", "NaN", "[]"])
                if action == "json" and isinstance(old, str):
                    new = _json(old.encode(), chance).decode("utf-8", "replace")
                database.execute(f"update {table} set {column} = ? where rowid = ?", [new, row])
            database.commit()
        except sqlite3.Error:
            database.close()
            return _bytes(content, chance)
        database.close()
        return path.read_bytes()


def _events(content: bytes, chance: random.Random) -> bytes:
    """Records of TensorBoard: one damaged with right checksums, lost, doubled or moved."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    records, at = [], 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        if at + 16 + length > len(content):
            break
        records.append(content[at + 12 : at + 12 + length])
        at += 16 + length
    if not records:
        return content
    place, other = chance.randrange(len(records)), chance.randrange(len(records))
    action = chance.choice(["damage", "damage", "damage", "lose", "twice", "swap"])
    if action == "damage":
        records[place] = _bytes(records[place], chance)
    elif action == "lose":
        del records[place]
    elif action == "twice":
        records.insert(other, records[place])
    else:
        records[place], records[other] = records[other], records[place]
    made = b""
    for record in records:
        length = struct.pack("<Q", len(record))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, record)]
        made += length + sums[0] + record + sums[1]
    return made


INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json,
    "lines": _lines,
    "csv": _table,
    "zip": _zip,
    "npy": _npy,
    "h5": _h5,
    "sqlite": _sqlite,
    "events": _events,
}
