"""Read the old store: its jobs, their frames and arguments, and what the provider knew of them.

`write.py` wrote the rest of this folder, and is kept as a record; none of it is written anew:

``manifest.json``
    Which version wrote it, and of each job: what it is, the verb and the arguments that made it,
    its frame, and what `collect` gave then (``before``) and when the provider was done (``after``).
``store/``, ``frames/``, ``images/``, ``requests.jsonl``, ``answers.jsonl``
    The store, and what the jobs were made of.
``provider.json``
    The files and batches of the loopback server when the store was left alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
from batch_server import BatchServer
from batch_server.books import StoredFile
from batch_server.life import Batch

import frameenrich

HERE = Path(__file__).parent
Table = dict[str, list[Any]]


class Maker(pydantic.BaseModel):
    """A part of an answer."""

    name: str
    country: str | None = None


class Product(pydantic.BaseModel):
    """An answer that is a class of the user's."""

    maker: Maker
    tags: list[str]
    price: float = pydantic.Field(ge=0)


def last_word(text: str) -> str:
    """Read an answer as a parser of the user's does."""
    return text.rsplit(maxsplit=1)[-1]


CODE: dict[str, Any] = {
    "Product": Product,
    "last_word": last_word,
    "types": {
        "department": Literal["Kitchen", "Garden"],
        "tags": list[str],
        "weight_g": int,
        "fragile": bool,
        "since": date,
    },
}
"""What JSON cannot hold of the arguments; an argument ``{"code": name}`` stands for it."""


@dataclass(frozen=True)
class Entry:
    """Hold what the manifest says of one job; paths are relative to the folder `home`."""

    home: Path
    kind: str
    what: str
    verb: str
    arguments: dict[str, Any]
    frame_file: str | None
    read: dict[str, Any]
    job: str = ""
    before: Table = dataclasses.field(default_factory=dict)
    after: Table = dataclasses.field(default_factory=dict)

    @property
    def store(self) -> Path:
        """Give the store's folder."""
        return self.home / "store"

    @property
    def name(self) -> str:
        """Give the name of the enrichment."""
        return str(self.arguments["name"])

    def frame(self) -> pd.DataFrame | None:
        """Read the job's frame from its file, as in a new session; None for ready requests."""
        if self.frame_file is None:
            return None
        path = self.home / self.frame_file
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        frame: pd.DataFrame = pd.read_csv(path, **self.read)
        return frame

    def call(self, client: Any, **other: Any) -> Any:
        """Do what made the job: give the job, or a pilot's frame."""
        asked = {**_decoded(self.arguments), "store": self.store, "client": client, **other}
        frame = self.frame()
        if frame is None:
            requests = self.home / asked.pop("requests")
            return getattr(frameenrich, self.verb)(requests, **asked)
        return getattr(frame.llmbatch, self.verb)(**asked)

    def open(self, client: Any) -> frameenrich.Job:
        """Open the job by its id, as a new session does."""
        return frameenrich.open_job(self.job, self.store, client=client)

    def reading(self) -> dict[str, Any]:
        """Give what a session has to bring to read the answers: a parser, where there is one."""
        found = _decoded(self.arguments).get("parser")
        return {} if found is None else {"parser": found}

    def collect(self, job: Any, **options: Any) -> Table:
        """Collect on the job's frame, and give what was added as JSON."""
        return self.answers(job.collect(self.frame(), usage=True, **self.reading(), **options))

    def finish(self, client: Any) -> Table:
        """Bring home what is left, and collect."""
        job = self.open(client)
        if self.kind == "file":
            job.import_responses(self.home / "answers.jsonl")
        return self.collect(job, wait=True, poll_seconds=0.01)

    def answers(self, out: pd.DataFrame) -> Table:
        """Give the columns that collecting added, but for the reasons' wording and the prices."""
        frame = self.frame()
        theirs = [] if frame is None else list(frame.columns)
        left_out = {*theirs, f"{self.name}_error", f"{self.name}_cost_usd"}
        return {name: _cells(out[name]) for name in out.columns if name not in left_out}


def _decoded(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: CODE[value["code"]] if isinstance(value, dict) and "code" in value else value
        for name, value in arguments.items()
    }


def _cells(column: pd.Series[Any]) -> list[Any]:
    return [_cell(value) for value in column.astype(object)]


def _cell(value: Any) -> Any:
    """Give a cell as JSON has it."""
    if isinstance(value, np.ndarray):
        return [round(float(number), 5) for number in value]
    if isinstance(value, (list, dict, str)):
        return value
    if pd.isna(value):
        return None
    if isinstance(value, (date, pd.Timestamp)):
        return pd.Timestamp(value).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def entries(home: Path = HERE) -> list[Entry]:
    """Read the manifest of the folder, or of a copy of it; no ``after``: nothing more came."""
    manifest = json.loads((home / "manifest.json").read_text("utf-8"))
    return [Entry(home=home, **{"after": each["before"], **each}) for each in manifest["jobs"]]


# --- what the provider knew ----------------------------------------------------------------------

_TEXTS = {"content", "source"}
_TEXT_LISTS = {"lines", "output", "failures"}
_UNSAVED = {"lock", "faults"}


def books_of(server: BatchServer) -> dict[str, Any]:
    """Give a server's files and batches as JSON; contents only where a batch is not done."""
    batches = list(server._batches.values())
    needed = {batch.input_file_id for batch in batches if not batch.finished}
    files = [
        file if file.id in needed else dataclasses.replace(file, content=b"")
        for file in server._files.values()
    ]
    return {
        "next_number": next(server._numbers),
        "files": [_saved(file) for file in files],
        "batches": [_saved(batch) for batch in batches],
    }


def _saved(record: Any) -> dict[str, Any]:
    fields = (field.name for field in dataclasses.fields(record))
    saved = {name: getattr(record, name) for name in fields if name not in _UNSAVED}
    for name in _TEXTS & saved.keys():
        saved[name] = saved[name].decode()
    for name in _TEXT_LISTS & saved.keys():
        saved[name] = [line.decode() for line in saved[name]]
    return saved


def restore(server: BatchServer, home: Path = HERE) -> None:
    """Give a server the files and batches of then."""
    books = json.loads((home / "provider.json").read_text())
    server._numbers = itertools.count(books["next_number"])
    for saved in books["files"]:
        file = StoredFile(**_loaded(saved))
        server._files[file.id] = file
    for saved in books["batches"]:
        batch = Batch(**_loaded(saved))
        server._batches[batch.id] = batch


def _loaded(saved: dict[str, Any]) -> dict[str, Any]:
    loaded = dict(saved)
    for name in _TEXTS & loaded.keys():
        loaded[name] = loaded[name].encode()
    for name in _TEXT_LISTS & loaded.keys():
        loaded[name] = [line.encode() for line in loaded[name]]
    return loaded
