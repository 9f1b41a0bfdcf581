"""Render, encode and hash a frame's rows as requests, a chunk at a time. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pandas as pd
import pyarrow as pa

from frameenrich.errors import ImageError, NullValueError, ParameterError
from frameenrich.identity import older
from frameenrich.identity.hashes import (
    HASH_BYTES,
    hash_column,
    request_hash,
    request_hashes,
    texts_hashes,
)
from frameenrich.jsonl import encode, encode_all
from frameenrich.model import HASHES, JobSpec
from frameenrich.rendering.body import (
    EMPTY_BODIES,
    BodyTemplate,
    RequestBodies,
    image_slot,
    input_hash,
)
from frameenrich.rendering.caching import marked_message
from frameenrich.rendering.images import ImageCells, image_cells
from frameenrich.rendering.prompt import Prompt, Texts, prompt_of


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Requests of some rows.

    ``rows`` is how many rows of the frame these cover, ``positions`` those of them that have a
    request. The bodies, and the hashes of 32 bytes each, are in the order of ``positions``.
    ``left_out`` maps the positions of rows without a usable image to the reason; ``sized`` counts
    the images that were made smaller to what the model looks at.
    """

    rows: int
    positions: Sequence[int]
    bodies: RequestBodies
    request_hashes: bytes
    input_hashes: bytes
    left_out: Mapping[int, str] = field(default_factory=dict)
    sized: int = 0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Rendered rows of a frame; ``positions`` are those that have all their texts."""

    start: int
    rows: int
    positions: Sequence[int]
    texts: Sequence[Sequence[str]]


def row_requests(frame: pd.DataFrame, spec: JobSpec, prompt: Prompt) -> Iterator[EncodedRows]:
    """Render a frame into requests: a chunk of rows at a time, or one row where it shows images.

    Raises
    ------
    TemplateError, NullValueError, ImageError
        A row cannot be asked; the message names its position.
    """
    cells, constant = image_cells(frame, spec), prompt.constants(list(frame.columns))
    encoder: RequestEncoder | None = None
    for chunk in _chunks(prompt.render_texts(frame)):
        if not chunk.positions:
            yield EncodedRows(chunk.rows, (), EMPTY_BODIES, b"", b"")
            continue
        encoder = encoder or make_encoder(spec, constant, chunk.texts)
        if cells is None:
            yield encoder.requests(chunk)
        else:
            try:
                yield from encoder.requests_with_images(chunk, cells)
            except ImageError as error:
                # Name every bad cell at once: one error a run would take a run for each to mend.
                first = len(frame) if error.position is None else error.position
                rest = range(first + 1, len(frame))
                error.also = [row for row in rest if cells.problem(row) is not None]
                raise


def input_hashes(frame: pd.DataFrame, spec: JobSpec) -> pa.Array:
    """Return the input hash of each row of a frame under a job's templates; null where it has none.

    The hashes are made by the formula of the version that wrote the job.
    """
    cells, prompt = image_cells(frame, spec), prompt_of(spec)
    constant = prompt.constants(list(frame.columns))
    encoder: RequestEncoder | None = None
    # A store of version 2 goes on by its own formula (`identity.older`), or no row would match.
    width = HASH_BYTES if spec.version == HASHES else older.HASH_BYTES
    found = [pa.array([], pa.binary(width))]
    for chunk in _chunks(prompt.render_texts(frame, lenient=True)):
        hashes: pa.Array = pa.array([], pa.binary(width))
        if cells is not None:
            rows = zip(chunk.positions, zip(*chunk.texts, strict=True), strict=False)
            own = [_hash_with_images(row, cells, position) for position, row in rows]
            hashes = pa.array(own, pa.binary(width))
        elif chunk.positions and spec.version != HASHES:
            hashes = hash_column(older.texts_hashes(chunk.texts), width)
        elif chunk.positions:
            encoder = encoder or make_encoder(spec, constant, chunk.texts)
            contents = encoder.contents(chunk.texts)
            hashes = hash_column(encoder.input_hashes(contents, len(chunk.positions)))
        if len(chunk.positions) < chunk.rows:
            whole: list[bytes | None] = [None] * chunk.rows
            for position, own_hash in zip(chunk.positions, hashes.to_pylist(), strict=True):
                whole[position - chunk.start] = own_hash
            hashes = pa.array(whole, pa.binary(width))
        found.append(hashes)
    return pa.concat_arrays(found)


def _hash_with_images(row: Sequence[str], cells: ImageCells, position: int) -> bytes | None:
    """Return a row's input hash; None where its images cannot be read any more."""
    try:
        digests = cells.digests(position)
    except (ImageError, NullValueError):
        return None
    if digests is None:
        return None
    shown = (*row, *digests)
    if cells.spec.version == HASHES:
        return input_hash(shown)
    return older.texts_hashes([[text] for text in shown])


def _chunks(chunks: Iterable[Texts]) -> Iterator[_Chunk]:
    """Leave out the rows that lack a text."""
    start = 0  # counts skipped rows too: a position is one of the whole frame
    for texts in chunks:
        rows = len(texts[0])
        positions: Sequence[int] = range(start, start + rows)
        complete = texts
        if any(None in column for column in texts):
            kept = [i for i, row in enumerate(zip(*texts, strict=True)) if None not in row]
            positions = [start + i for i in kept]
            complete = [[column[i] for i in kept] for column in texts]
        yield _Chunk(start, rows, positions, cast("Sequence[Sequence[str]]", complete))
        start += rows


def make_encoder(
    spec: JobSpec, constant: Sequence[bool], texts: Sequence[Sequence[str]]
) -> RequestEncoder:
    """Encode the texts that all rows share, taken from the first rows, and make the encoder."""
    slot = image_slot(spec) % len(spec.messages)
    # A text may be constant where the images that are shown with it are not.
    same = {
        i: encode(column[0])
        for i, column in enumerate(texts)
        if constant[i] and not (spec.image and i == slot)
    }
    # A mark on a text that differs from row to row would pay for a cache that nothing reads.
    if spec.cache is not None and not constant[marked_message(spec) or 0]:
        raise ParameterError(
            "cache= needs a system message that is the same in every row, and it uses columns.",
            "Move what differs from row to row into the user's message.",
        )
    template = BodyTemplate(spec, same)
    return RequestEncoder(
        url=spec.url,
        template=template,
        varying=[i for i in range(len(texts)) if i not in same],
        slot=slot,
    )


@dataclass(frozen=True, slots=True)
class RequestEncoder:
    """Turn texts into contents, and contents into hashes and bodies.

    Parameters
    ----------
    url : str
        What the requests call.
    template : BodyTemplate
        The JSON around what varies.
    varying : list of int
        The messages whose texts differ from row to row.
    slot : int
        The message that shows images.
    """

    url: str
    template: BodyTemplate
    varying: list[int]
    slot: int

    def contents(self, texts: Sequence[Sequence[str]]) -> list[list[bytes]]:
        """Encode each varying message's texts as JSON."""
        return [encode_all(texts[i]) for i in self.varying]

    def input_hashes(self, contents: Sequence[Sequence[bytes]], count: int) -> bytes:
        """Hash the inputs of `count` rows."""
        return texts_hashes(self.template.same_texts, contents, count)

    def requests(self, chunk: _Chunk) -> EncodedRows:
        """Build a chunk's requests."""
        count = len(chunk.positions)
        contents = self.contents(chunk.texts)
        inputs = self.input_hashes(contents, count)
        bodies = self.template.bodies(contents, count)
        # A request's hash is of the input hash and of the rest of the body, so no body is joined
        # to be hashed and each text is digested once for both.
        hashes = request_hashes(self.template.rest, inputs)
        return EncodedRows(chunk.rows, chunk.positions, bodies, hashes, inputs)

    def requests_with_images(self, chunk: _Chunk, cells: ImageCells) -> Iterator[EncodedRows]:
        """Build a chunk's requests one by one: the images of all could be gigabytes."""
        done, end = chunk.start, chunk.start + chunk.rows
        left_out: dict[int, str] = {}
        for position, *row in zip(chunk.positions, *chunk.texts, strict=True):
            try:
                found = cells.images(position)
            except ImageError as error:
                if cells.spec.on_bad_image == "raise":
                    raise
                left_out[position] = error.reason
                continue
            if found is None:
                continue
            contents = self.contents([[text] for text in row])
            # `make_encoder` never folds this slot into the constants where the job has images.
            shown = self.template.with_images(row[self.slot], found.urls)
            contents[self.varying.index(self.slot)] = [shown]
            bodies = self.template.bodies(contents, 1)
            own = request_hash(self.url, self.template.hashed_body(contents))
            # By the cells' digests and not the data URLs: another Pillow makes other bytes.
            shown_hash = input_hash((*row, *found.digests))
            rows = position + 1 - done
            yield EncodedRows(
                rows, (position,), bodies, own, shown_hash, left_out, sized=found.sized
            )
            done, left_out = position + 1, {}
        if done < end:
            yield EncodedRows(end - done, (), EMPTY_BODIES, b"", b"", left_out)


def encode_texts(spec: JobSpec, texts: Sequence[Sequence[str]], start: int) -> EncodedRows:
    """Build the requests of rows that are rendered already, from the row at `start` on.

    Parameters
    ----------
    spec : JobSpec
        What they are sent with.
    texts : sequence of sequence of str
        For each message its text in every row.
    start : int
        The position of the first row.
    """
    rows = len(texts[0])
    chunk = _Chunk(start, rows, range(start, start + rows), texts)
    return make_encoder(spec, [False] * len(texts), texts).requests(chunk)
