"""Read the keys of a frame's rows, check them, and find them again.

A key is kept in Arrow's types, so that it survives Parquet; a frame that was re-read with other
dtypes (dates as text, numbers as strings) is cast to the types of the sidecar before matching.
"""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from base64 import b32encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from frameenrich.errors import RowKeyError

BLOCK_ROWS = 16_384
"""Keys are made text so many at a time."""


_SEPARATOR = "\x1f"


_ESCAPE = "\x1e"


# With "row-" before it, "-" and a tag of 6 after it: 51 characters at most.
_PLAIN_LABEL = r"^[A-Za-z0-9_-]{1,40}$"


_SLUG_LENGTH = 13


_ID_BYTES = 16
"""Of a key's hash, so that the id stays short; the tag in it is known to nobody beforehand."""


# What of a person's own custom_ids goes as it is: with room for a later round's "r1-", and never
# what a later round or a hashed key would be called.
_PLAIN_ID = re.compile(r"(?!r\d+-|key-)[A-Za-z0-9_-]{1,51}")


def key_names(frame: pd.DataFrame, key: Sequence[str] | None) -> list[str]:
    """Return the names that a person knows the key by: columns, or index levels.

    Examples
    --------
    >>> key_names(pd.DataFrame({"sku": ["a"]}), ["sku"]), key_names(pd.DataFrame(), None)
    (['sku'], ['index'])
    """
    if key is not None:
        return [str(name) for name in key]
    levels = frame.index.names
    if len(levels) == 1:
        return [str(levels[0]) if levels[0] is not None else "index"]
    return [str(n) if n is not None else f"level_{i}" for i, n in enumerate(levels)]


def read_keys(frame: pd.DataFrame, key: Sequence[str] | None) -> pa.Table:
    """Read each row's key: one Arrow column a part, named ``key_0``, ``key_1``, ...

    Raises
    ------
    RowKeyError
        A column of `key` is not in the frame, is there twice, or holds text that is not Unicode.
    """
    parts = _key_parts(frame, key)
    try:
        return pa.table({f"key_{i}": _to_arrow(part) for i, part in enumerate(parts)})
    except UnicodeEncodeError as error:
        raise RowKeyError(
            f"A key holds text that cannot be stored: {error.object!r} is not valid Unicode.",
            "Correct that key, or pass key= with other column(s).",
        ) from None


def _key_parts(frame: pd.DataFrame, key: Sequence[str] | None) -> list[pd.Series | pd.Index]:
    if key is None:
        index = frame.index
        return [index.get_level_values(i) for i in range(index.nlevels)]
    absent = [name for name in key if name not in frame.columns]
    if absent:
        raise RowKeyError(
            f"The key column {absent[0]!r} is not in the frame.",
            f"Give key= one or more of its columns: {', '.join(map(str, frame.columns))}.",
            columns=absent,
        )
    repeated = [name for name in key if isinstance(frame[name], pd.DataFrame)]
    if repeated:
        raise RowKeyError(
            f"The frame has more than one column called {repeated[0]!r}, which is the key.",
            "Rename one of them.",
            columns=repeated,
        )
    return [frame[name] for name in key]


def _to_arrow(part: pd.Series | pd.Index) -> pa.Array:
    # As its values, since a re-read file has no categories.
    if isinstance(part.dtype, pd.CategoricalDtype):
        part = part.astype(object if part.hasnans else part.dtype.categories.dtype)
    if isinstance(part.dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        part = part.map(str, na_action="ignore")
    try:
        array = pa.array(part, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        array = pa.array([None if _is_null(v) else str(v) for v in part], pa.string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    foreign = isinstance(array.type, pa.BaseExtensionType)  # such as UUIDs
    if foreign or pa.types.is_nested(array.type) or pa.types.is_dictionary(array.type):
        array = pa.array([None if _is_null(v) else str(v) for v in part], pa.string())
    # pandas' text dtypes give large_string, objects that hold text give string: one type for both.
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def _is_null(value: Any) -> bool:
    # isna() of a list is an array, which has no truth value.
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def check_keys(keys: pa.Table, names: Sequence[str]) -> None:
    """Refuse keys that do not name each row exactly once.

    Raises
    ------
    RowKeyError
        Some key is null, or two rows have the same one; the message gives an example and the fix.
    """
    what = f"key {tuple(names)}" if len(names) > 1 else f"key {names[0]!r}"
    fix = "Pass key= with the column(s) that name a row, or call reset_index(drop=True) first."
    for column in keys.columns:
        if column.null_count:
            position = pc.index(column.is_null(), True).as_py()
            raise RowKeyError(
                f"The {what} is null in {column.null_count} row(s), first at position {position}.",
                "Fill it, or leave those rows out, or pass key= with columns that name every row.",
                count=column.null_count,
                position=position,
            )
    _check_unique(keys, what, fix)


def _check_unique(keys: pa.Table, what: str, fix: str) -> None:
    if not _may_repeat(keys):
        return
    # Two keys may share a digest, so only equal texts are a repeat.
    counts = pc.value_counts(key_texts(keys))
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated) == 0:
        return
    example = repeated[0].as_py()["values"].replace(_SEPARATOR, ", ")
    raise RowKeyError(
        f"The {what} repeats: {len(repeated)} value(s) name more than one row, such as {example}.",
        fix,
        count=len(repeated),
        example=example,
    )


def _may_repeat(keys: pa.Table) -> bool:
    """Tell whether two rows may share a key, at 8 bytes a row; a table of texts takes hundreds."""
    column = keys.column(0)
    whole = keys.num_columns == 1 and pa.types.is_integer(column.type)
    digests = column.to_numpy() if whole else key_digests(keys)
    rises = (_rises(digests, start) for start in range(0, len(digests), BLOCK_ROWS))
    if whole and all(rises):
        return False  # rising, as most indexes are
    # A copy: to_numpy() may be a view of the column's own memory.
    ordered = digests.copy()
    ordered.sort()
    return bool((ordered[1:] == ordered[:-1]).any())


def _rises(values: npt.NDArray[Any], start: int) -> bool:
    some = values[start : start + BLOCK_ROWS + 1]
    return bool((some[1:] > some[:-1]).all())


def key_digests(keys: pa.Table) -> npt.NDArray[np.uint64]:
    """Return 8 bytes a row that stand for its key's text."""
    digests = np.empty(keys.num_rows, dtype=np.uint64)
    for start in range(0, keys.num_rows, BLOCK_ROWS):
        texts = key_texts(keys.slice(start, BLOCK_ROWS)).cast(pa.binary()).to_pylist()
        digests[start : start + len(texts)] = list(map(xxhash.xxh3_64_intdigest, texts))
    return digests


def sidecar_keys(sidecar: pa.Table) -> pa.Table:
    """Return the key columns of a sidecar."""
    return sidecar.select([name for name in sidecar.column_names if name.startswith("key_")])


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return one schema for the sidecars of parts, whose keys may have different types.

    Examples
    --------
    >>> of = lambda kind: pa.schema({"key_0": kind})
    >>> common_schema([of(pa.int32()), of(pa.int64())]).field("key_0").type
    DataType(int64)
    >>> common_schema([of(pa.int64()), of(pa.string())]).field("key_0").type
    DataType(string)
    """
    return pa.schema(
        [
            (name, _common_type({schema.field(name).type for schema in schemas}))
            for name in schemas[0].names
        ]
    )


def _common_type(kinds: set[pa.DataType]) -> pa.DataType:
    if len(kinds) == 1:
        return next(iter(kinds))
    # int64 holds every signed integer; any other mixture agrees only as text.
    return pa.int64() if all(map(pa.types.is_signed_integer, kinds)) else pa.string()


def cast_keys(sidecar: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a sidecar whose keys have the types of the schema."""
    for column_index, name in enumerate(sidecar.column_names):
        column, kind = sidecar[name], schema.field(name).type
        if column.type != kind:
            cast = _as_text(column) if pa.types.is_string(kind) else column.cast(kind)
            sidecar = sidecar.set_column(column_index, name, cast)
    return sidecar.cast(schema)


def key_texts(keys: pa.Table) -> pa.Array:
    r"""Return each row's key as one text; the parts of a key are joined by U+001F.

    Examples
    --------
    >>> key_texts(pa.table({"key_0": ["a", "b\x1f"], "key_1": ["c", "d"]})).to_pylist()
    ['a\x1fc', 'b\x1e\x1f\x1fd']
    """
    texts = [_as_text(column) for column in keys.columns]
    if len(texts) == 1:
        joined = texts[0]
    else:
        joined = pc.binary_join_element_wise(*_unambiguous(texts), _SEPARATOR)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _unambiguous(texts: Sequence[pa.ChunkedArray]) -> Sequence[pa.ChunkedArray]:
    """Return the parts of keys, escaped in those rows alone where one of them holds U+001F.

    No other row has as many of it in its text as they do, so that those stay as they are.
    """
    odd = functools.reduce(pc.or_, (pc.match_substring(text, _SEPARATOR) for text in texts))
    if not pc.any(odd).as_py():
        return texts
    return [pc.if_else(odd, _escaped(text), text) for text in texts]


def _escaped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    for mark in (_ESCAPE, _SEPARATOR):
        texts = pc.replace_substring(texts, mark, _ESCAPE + mark)
    return texts


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_timestamp(column.type):
        return _moments(column)
    # In one unit: pandas 2 and 3 read the same span in different ones.
    if pa.types.is_duration(column.type):
        with contextlib.suppress(pa.ArrowInvalid):  # longer than fits
            column = column.cast(pa.duration("ns"))
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.array([str(v) for v in column.to_pylist()], pa.string())])


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write moments as texts without unit (pandas 2 and 3 choose different ones) or time zone."""
    if column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    texts = column.cast(pa.string())
    for zeros, kept in ((r"(\.\d*?)0+(Z?)$", r"\1\2"), (r"\.(Z?)$", r"\1")):
        texts = pc.replace_substring_regex(texts, zeros, kept)
    return texts


def show_key(keys: pa.Table, position: int) -> str:
    """Return the key of one row as a person would write it, for messages."""
    parts = (column[position].as_py() for column in keys.columns)
    shown = [repr(own) if isinstance(own, (str, int, float)) else str(own) for own in parts]
    return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"


# A custom_id ends with a tag of its job, so that a line says whose it is: `row-0` is in every
# default index. The tag is random: it is there before the first row, the job's id after the last.
def custom_ids(keys: pa.Table, tag: str) -> pa.Array:
    """Name each row's request: ``row-<label>-<tag>``, or a slug and a hash of what is no label.

    At most 51 characters of ``[A-Za-z0-9_-]``, unique where the keys are; a later round puts
    ``r1-`` before them, Anthropic's provider a mark of nine characters, and all stay within the 64
    that every provider takes.

    Examples
    --------
    >>> custom_ids(pa.table({"key_0": [42, -1]}), "3f9a1c").to_pylist()
    ['row-42-3f9a1c', 'row--1-3f9a1c']
    >>> custom_ids(pa.table({"key_0": ["B0CJHKVG6P", "a/b"]}), "3f9a1c").to_pylist()[1]
    'key-a-b-cjz674q4solorvlbeg5ivfs6i4-3f9a1c'
    """
    texts = key_texts(keys)
    single = keys.column(0).type if keys.num_columns == 1 else None
    # An integer's text has 20 characters at most, all of which an id may have.
    if single is not None and pa.types.is_integer(single):
        return pc.binary_join_element_wise("row", texts, tag, "-")
    if single is None or not pa.types.is_string(single):
        return pa.array([_hashed_id(text, tag) for text in texts.to_pylist()], pa.string())
    plain = pc.match_substring_regex(texts, _PLAIN_LABEL)
    if pc.all(plain).as_py():
        return pc.binary_join_element_wise("row", texts, tag, "-")
    return pa.array(
        [
            f"row-{text}-{tag}" if is_plain else _hashed_id(text, tag)
            for text, is_plain in zip(texts.to_pylist(), plain.to_pylist(), strict=True)
        ],
        pa.string(),
    )


def _hashed_id(text: str, tag: str) -> str:
    """Return a custom_id for a key that can be none; two keys of one name would swap answers."""
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:_SLUG_LENGTH].rstrip("-")
    # The tag is in the hash: nobody knows it beforehand, so nobody can prepare two keys of one id.
    digest = sha256(f"{tag}/{text}".encode("utf-8", "surrogatepass")).digest()[:_ID_BYTES]
    name = b32encode(digest).decode().rstrip("=").lower()
    # 4 + 13 + 1 + 26 + 1 + 6 = 51 characters at most, as for a plain label.
    return f"key-{slug}-{name}-{tag}" if slug else f"key-{name}-{tag}"


def wire_id(custom_id: str, tag: str) -> str:
    """Return the name at the provider of a request that came with a custom_id.

    As it came where every provider takes it, else a slug of it and a hash; the
    sidecar says which is which.

    Examples
    --------
    >>> wire_id("request-7", "3f9a1c"), wire_id("https://example.org/7", "3f9a1c")
    ('request-7', 'key-https-example-2zsdkdpdpydk7tsre4krzpym2a-3f9a1c')
    """
    return custom_id if _PLAIN_ID.fullmatch(custom_id) else _hashed_id(custom_id, tag)


def find_keys(wanted: pa.Table, known: pa.Table) -> npt.NDArray[np.int64]:
    """Find each key of `wanted` in `known`: its position, or -1.

    Parts are cast to the types of `known` first; keys that cannot be cast are compared as text.
    """
    given = wanted.columns
    columns = [_cast_like(w, k.type) for w, k in zip(given, known.columns, strict=True)]
    if len(wanted) == len(known) and all(map(pa.ChunkedArray.equals, columns, known.columns)):
        return np.arange(len(known), dtype=np.int64)  # the frame as it was: most often
    # Only if every part could be cast; else the texts of both sides decide.
    if all(c.type == k.type for c, k in zip(columns, known.columns, strict=True)):
        wanted = pa.table(dict(zip(known.column_names, columns, strict=True)))
    positions = _positions(wanted, known)
    if (positions < 0).any() and any(map(_may_be_text, given, known.columns)):
        # A file that was read again has the number 7 where the key is the text 007.
        columns = [_texts_like(w, k) for w, k in zip(given, known.columns, strict=True)]
        again = _positions(pa.table(dict(zip(known.column_names, columns, strict=True))), known)
        positions = np.where(positions < 0, again, positions)
    return positions


def _positions(wanted: pa.Table, known: pa.Table) -> npt.NDArray[np.int64]:
    found = pc.index_in(key_texts(wanted), value_set=key_texts(known))
    positions: npt.NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False)
    return positions.astype("int64")


def _may_be_text(column: pa.ChunkedArray, known: pa.ChunkedArray) -> bool:
    """Tell whether a key of numbers or moments may have been submitted as texts."""
    kind = column.type
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind)
    return bool(pa.types.is_string(known.type) and plain)


_EXACT = 2.0**53


def _texts_like(column: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write numbers and moments as the known texts do; one that several texts mean stays."""
    if not _may_be_text(column, known):
        return column
    texts = pc.unique(known).to_pandas()
    if not pa.types.is_timestamp(column.type):
        read = pd.to_numeric(texts, errors="coerce").astype(float)
        values = column.to_pandas().astype(float)
        # Beyond 2**53 a float stands for several whole numbers, so it names no row.
        read = read.where(read.abs() < _EXACT)
    else:
        read = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
        values = pd.to_datetime(column.to_pandas(), utc=True)
    meant = pd.Series(texts.to_numpy(), index=read)
    meant = meant[meant.index.notna() & ~meant.index.duplicated(keep=False)]
    written = values.map(meant)
    own = _as_text(column).to_pandas()
    return pa.chunked_array([pa.array(written.where(written.notna(), own), pa.string())])


def _cast_like(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    if column.type == target:
        return column
    try:
        if pa.types.is_timestamp(target) and pa.types.is_string(column.type):
            return _parse_times(column, target)
        if pa.types.is_duration(target) and pa.types.is_string(column.type):
            spans = pd.to_timedelta(column.to_pandas(), errors="coerce")
            return pa.chunked_array([pa.array(spans, from_pandas=True).cast(target)])
        return column.cast(target)
    except (ValueError, pa.ArrowNotImplementedError):  # ArrowInvalid is a ValueError
        return column


def _parse_times(column: pa.ChunkedArray, target: Any) -> pa.ChunkedArray:
    texts, utc = column.to_pandas(), target.tz is not None
    # ISO 8601 can be read one way only; other formats are guessed where no text is of it.
    times = pd.to_datetime(texts, errors="coerce", utc=utc, format="ISO8601")
    if times.isna().all():
        with warnings.catch_warnings():  # pandas warns where a text is no time at all
            warnings.simplefilter("ignore", UserWarning)
            times = pd.to_datetime(texts, errors="coerce", utc=utc)
    return pa.chunked_array([pa.array(times, from_pandas=True).cast(target)])
