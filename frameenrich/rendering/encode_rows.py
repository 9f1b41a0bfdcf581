"""A frame's rows as requests, some at a time: rendered, encoded, hashed. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.errors import ImageError, NullValueError
from frameenrich.identity.hashes import (
    HASH_BYTES,
    Digests,
    combined,
    hash_column,
    request_hash,
    text_digest,
    text_digests,
)
from frameenrich.jsonl import encode, encode_all
from frameenrich.model import JobSpec
from frameenrich.rendering.body import (
    EMPTY_BODIES,
    BodyTemplate,
    RequestBodies,
    image_slot,
    input_hash,
)
from frameenrich.rendering.images import ImageCells, image_cells
from frameenrich.rendering.prompt import Prompt, Texts, prompt_of

Contents = list[list[bytes] | None]


def input_hashes(frame: pd.DataFrame, spec: JobSpec) -> pa.Array:
    """The input hash of each row of a frame under a job's templates; null where none."""
    cells, prompt = image_cells(frame, spec), prompt_of(spec)
    encoder = RequestEncoder(spec, prompt, list(frame.columns))
    found = [pa.array([], pa.binary(HASH_BYTES))]
    for start, texts in _positioned(prompt.render_texts(frame, lenient=True)):
        if cells is None:
            found.append(encoder.input_hashes(texts))
            continue
        rows = enumerate(zip(*texts, strict=True), start)
        hashes = [_hash_with_images(row, cells, position) for position, row in rows]
        found.append(pa.array(hashes, pa.binary(HASH_BYTES)))
    return pa.concat_arrays(found)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Some rows' requests.

    ``rows`` is how many rows of the frame these stand for, ``positions`` where those of them are
    that have a request. The bodies, and the hashes of 16 bytes each, run along with ``positions``.
    """

    rows: int
    positions: Sequence[int]
    bodies: RequestBodies
    request_hashes: bytes
    input_hashes: bytes


def row_requests(frame: pd.DataFrame, spec: JobSpec, prompt: Prompt) -> Iterator[EncodedRows]:
    """Render a frame into requests; a chunk of rows at a time, or a row where it shows images.

    Raises
    ------
    TemplateError, NullValueError, ImageError
        A row cannot be asked; the message names its position.
    """
    cells = image_cells(frame, spec)
    encoder = RequestEncoder(spec, prompt, list(frame.columns))
    for start, texts in _positioned(prompt.render_texts(frame)):
        if cells is None:
            yield encoder.requests(start, texts)
            continue
        for i in range(len(texts[0])):  # the images of a whole chunk could be gigabytes
            yield encoder.request_with_images(start + i, [column[i] for column in texts], cells)


def _positioned(chunks: Iterable[Texts]) -> Iterator[tuple[int, Texts]]:
    start = 0
    for texts in chunks:
        yield start, texts
        start += len(texts[0])


def _hash_with_images(row: Sequence[str | None], cells: ImageCells, position: int) -> bytes | None:
    """A row's input hash; None where its text or its images cannot be had any more."""
    texts = [text for text in row if text is not None]
    try:
        digests = cells.digests(position) if len(texts) == len(row) else None
    except (ImageError, NullValueError):
        return None
    return None if digests is None else input_hash((*texts, *digests))


class RequestEncoder:
    """Texts to requests and hashes, with what is the same in every row done once."""

    def __init__(self, spec: JobSpec, prompt: Prompt, columns: Sequence[Any]) -> None:
        self._spec = spec
        self._slot = image_slot(spec) % len(spec.messages)
        self._constant = prompt.constants(columns)
        if spec.image:  # the text may be constant, what is shown with it is not
            self._constant[self._slot] = False
        self._same: dict[int, bytes] = {}

    @cached_property
    def _writer(self) -> BodyTemplate:
        return BodyTemplate(self._spec, self._same)  # made when the first texts are known

    def requests(self, start: int, texts: Texts) -> EncodedRows:
        """The requests of a chunk of rows; one that lacks a text has none."""
        rows = len(texts[0])
        positions: Sequence[int] = range(start, start + rows)
        kept = _complete(texts)
        if kept is not None:
            positions = [start + i for i in kept]
            texts = [[column[i] for i in kept] for column in texts]
        if not positions:
            return EncodedRows(rows, (), EMPTY_BODIES, b"", b"")
        contents = self._contents(texts)
        digests = self._digests(contents, len(positions))
        hashes = (digests ^ self._rest).tobytes()
        bodies = self._bodies(contents, len(positions))
        return EncodedRows(rows, positions, bodies, hashes, digests.tobytes())

    def request_with_images(
        self, position: int, row: Sequence[str | None], cells: ImageCells
    ) -> EncodedRows:
        """The request of one row, which shows images."""
        found = None if None in row else cells.images(position)
        if found is None:
            return EncodedRows(1, (), EMPTY_BODIES, b"", b"")
        contents = self._contents([[text] for text in row])
        contents[self._slot] = [self._writer.with_images(row[self._slot] or "", found.urls)]
        bodies = self._bodies(contents, 1)
        own = request_hash(self._spec.url, bodies[0])
        shown = input_hash((*(text or "" for text in row), *found.digests))
        return EncodedRows(1, (position,), bodies, own, shown)

    def input_hashes(self, texts: Texts) -> pa.Array:
        """The input hash of each row of a chunk; null for one that lacks a text."""
        kept = _complete(texts)
        if kept is None:
            return hash_column(self._digests(self._contents(texts), len(texts[0])).tobytes())
        hashes: list[bytes | None] = [None] * len(texts[0])
        if kept:
            whole = [[column[i] for i in kept] for column in texts]
            found = hash_column(self._digests(self._contents(whole), len(kept)).tobytes())
            for i, own in zip(kept, found.to_pylist(), strict=True):
                hashes[i] = own
        return pa.array(hashes, pa.binary(HASH_BYTES))

    def _bodies(self, contents: Contents, count: int) -> RequestBodies:
        return self._writer.bodies([column for column in contents if column is not None], count)

    def _contents(self, texts: Texts) -> Contents:
        """Each message's texts as JSON; None for one that is the same in every row."""
        for i, column in enumerate(texts):
            if self._constant[i] and i not in self._same:
                self._same[i] = encode(column[0])
        return [None if i in self._same else encode_all(c) for i, c in enumerate(texts)]

    def _digests(self, contents: Contents, count: int) -> Digests:
        """The input hashes of some rows, given what each message holds."""
        varying = ((i, column) for i, column in enumerate(contents) if column is not None)
        own = [text_digests(column, place) for place, column in varying]
        same = _as_digest(combined(text_digest(text, i) for i, text in self._same.items()))
        return reduce(np.bitwise_xor, own, np.repeat(same, count, axis=0))

    @cached_property
    def _rest(self) -> Digests:
        return _as_digest(self._writer.rest)


def _as_digest(own: bytes) -> Digests:
    return np.frombuffer(own, "<u8").reshape(1, 2)


def _complete(texts: Texts) -> list[int] | None:
    """Which rows have all their texts; None where all rows have."""
    if not any(None in column for column in texts):
        return None
    return [i for i, row in enumerate(zip(*texts, strict=True)) if None not in row]
