"""Keep what a shard's responses were read as beside them: a second `collect` reads them no more.

The responses stay the only truth. What was kept is used for the very bytes, reading options and
versions that it was made of; anything else, damage too, has the responses read anew. It may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import cache
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import xxhash

from frameenrich.answers.output import Output
from frameenrich.errors import StoreError
from frameenrich.model import JobSpec
from frameenrich.store.shard import DAMAGE, ShardFolder

OFF = "FRAMEENRICH_READ_CACHE"
"""The environment variable that turns this off, by ``0``, ``off``, ``no`` or ``false``."""


_LEAST_BYTES = 4_000_000
"""Fewer bytes of responses are read in a blink; keeping that would only litter the store."""


_FORMAT = 8
"""Counts up when what is kept, or how answers are read, changes within a version."""


_READ_BY = ("frameenrich", "pydantic", "pydantic-core", "msgspec", "json-repair", "jsonschema-rs")
"""The packages that decide what an answer is read as."""


class ReadCache:
    """Keeps what was read of a job's shards, where it is a pure function of what can be hashed.

    Parameters
    ----------
    spec, output : JobSpec, Output
        The job's, and how its answers are read.
    details : collection of str
        What is kept beside values, statuses and errors.
    """

    def __init__(self, spec: JobSpec, output: Output, details: Collection[str]) -> None:
        self._reading = _reading_mark(spec, output, details)
        self._keys: dict[tuple[int, int], str] = {}

    def find(self, shard: ShardFolder, schema: pa.Schema | None) -> pa.Table | None:
        """Return what was kept of a shard, with columns of that schema; None where nothing fits.

        To be called before the responses are read, also where it gives nothing.
        """
        # The versions of the files are taken down before they are read: what changes meanwhile
        # has another one afterwards.
        key = _shard_key(shard, self._reading) if self._reading and schema else None
        if key is None:
            return None
        self._keys[shard.round, shard.number] = key
        with contextlib.suppress(*DAMAGE, StoreError, EOFError):
            data = shard.job.store.read(shard.kept_path)
            head, found = len(_head(key, b"")), memoryview(data)
            if bytes(found[:head]) == _head(key, found[head:]):
                with pa.ipc.open_stream(pa.py_buffer(found[head:])) as stream:
                    table: pa.Table = stream.read_all()
                if table.schema.equals(schema) and len(table.to_batches()) == 1:
                    return table
        return None

    def keep(self, shard: ShardFolder, read: Callable[[], pa.Table]) -> None:
        """Keep what was read of a shard, whole or not at all; a store that is full keeps nothing.

        `read` gives what is to be kept, in the order of requests: nothing is sorted next time.
        """
        key = self._keys.pop((shard.round, shard.number), None)
        if key is None:
            return
        table = read()
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
            stream.write_table(table.combine_chunks())
        data = sink.getvalue()
        write = shard.job.store.write_whole
        with contextlib.suppress(OSError, StoreError), write(shard.kept_path) as file:
            file.write(_head(key, data))
            file.write(data)


def _head(key: str, data: Any) -> bytes:
    """Return the start of a file: what it was made of, and a hash that sees damage."""
    return f"{key} {xxhash.xxh3_128_hexdigest(data)}\n".encode()


def _shard_key(shard: ShardFolder, reading: str) -> str | None:
    """Hash what a shard is read from; None where its responses may still change or are few."""
    files, size = [], 0
    if not shard.batch.settled:
        return None
    for path, proof in shard.response_files():
        found = shard.job.store.version(path)
        if proof is None and found is None and not shard.job.store.exists(path):
            continue  # all of its lines were imported
        # Only bytes that are compared with a proof while they are read, and files that show when
        # they change: SHA-256 says what was read, the version that it is so still.
        if proof is None or found is None:
            return None
        files.append((path.rpartition("/")[2], proof.sha256, found))
        size += proof.bytes
    if size < _LEAST_BYTES:
        return None
    return hashlib.sha256(json.dumps([reading, files]).encode()).hexdigest()


def _reading_mark(spec: JobSpec, output: Output, details: Collection[str]) -> str | None:
    """Write down all that decides how responses are read; None where code of the user does."""
    if os.environ.get(OFF, "").lower() in {"0", "off", "no", "false"}:
        return None
    if output.parser is not None or output.spec.kind == "parser":
        return None
    try:
        known = None if output.model is None else _class_mark(output.model)
    except _UnknownError:
        return None
    versions = _versions()
    form = [dataclasses.asdict(output.spec), sorted(output.reserved), known]
    mark = [_FORMAT, versions, spec.to_json(), form, sorted(details)]
    return json.dumps(mark, default=repr, sort_keys=True)


@cache
def _versions() -> list[tuple[str, str]]:
    return [(name, version(name)) for name in _READ_BY]


class _UnknownError(Exception):
    """A class has code or values that no text stands for."""


def _class_mark(model: Any) -> Any:
    """Describe a class whose answers pydantic's own rules decide.

    Raises
    ------
    _UnknownError
        It has validators, serializers, defaults or hooks of its own.
    """
    from pydantic import TypeAdapter  # noqa: PLC0415 - a class is known, so it is loaded

    return _described(TypeAdapter(model).core_schema, {})


_REFERENCES = frozenset({"ref", "schema_ref"})
"""Members of pydantic's core schema that end with a class's address in this process."""


def _described(value: Any, known: dict[int, int]) -> Any:
    if isinstance(value, Mapping):
        # Parts that refer to others share their nodes: written out each time, they have no end.
        if id(value) in known:
            return {"as above": known[id(value)]}
        known[id(value)] = len(known)
        # Code that pydantic runs around a class is no function of what this text says.
        if value.get("post_init") or value.get("custom_init"):
            raise _UnknownError
        return {
            str(name): re.sub(r":\d+", "", each)
            if name in _REFERENCES and isinstance(each, str)
            else _described(each, known)
            for name, each in value.items()
            if name != "metadata"  # how its JSON Schema is written
        }
    if isinstance(value, Enum):
        return [_described(type(value), known), value.name, _described(value.value, known)]
    if isinstance(value, list | tuple):
        return [_described(each, known) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, set | frozenset):
        return sorted(repr(_described(each, known)) for each in value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    raise _UnknownError
