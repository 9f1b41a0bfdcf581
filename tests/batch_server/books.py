"""The books: the server's options, its files, and the ledger of all that happened."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from .answers import default_answer, error_body
from .dialects import PURPOSES, DialectName
from .faults import Faults
from .life import DAY_SECONDS, Batch, show
from .reply import Answerer, Json, body_hash

FILE_DAYS = 30


class ApiError(Exception):
    """A request that is answered with an error, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = error_body(message, kind, param, code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request of the log; `path` always in the ``/v1/...`` form, keys blanked out.

    `status` is 0 where the connection was closed without an answer; `at` is ``time.monotonic()``
    when the answer was ready, `seconds` what it took.
    """

    method: str
    path: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int
    at: float
    seconds: float
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of the Files API; deleted ones stay in the books without their content."""

    id: str
    filename: str
    purpose: str
    content: bytes
    bytes: int
    created_at: int
    expires_at: int | None
    expires_after: Json | None
    project: str
    deleted: bool = False

    def as_json(self) -> Json:
        """Return the file object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


@dataclass(kw_only=True, eq=False)
class Books:
    """The state of a server, and what the Files API does with it. Thread-safe.

    Parameters
    ----------
    answer
        ``answer(body, custom_id) -> Reply``, for batch lines and live calls alike.
    faults
        ``Faults("stuck", make_fault("http_error", fraction=0.1))``; more at run time.
    http_error_fraction, malformed_fraction
        Short for faults ``http_error`` and ``malformed`` with that chance a row.
    seed
        Of the shuffled output, of which rows run in a partial batch, and of the two above.
    shuffle
        Whether the result files have their lines out of order.
    steps_per_poll
        Steps a batch takes at each GET of it; 0: only by :meth:`advance`.
    in_progress_steps
        Steps a batch stays ``in_progress``, with the counts going up.
    instant
        Whether a batch is at its end when its create is answered (still as ``validating``).
    cancel_ran
        Fraction of the rows that have run when a running batch was cancelled.
    require_key
        API key or keys that are let in; None: any, or none at all.
    per_key_projects
        Whether each key sees only its own files and batches.
    azure
        Whether endpoints may lack ``/v1``, the classic routes want ``?api-version=``, and clean
        batches have a zero-byte error file.
    unready_looks
        How often an uploaded file is shown as ``pending``, and no batch can be made of it (Azure).
    output_blobs
        Whether results lie in the user's own storage account: `output_blob` and no file (Azure).
    dialect
        ``openai``, ``groq``, ``together`` or ``mistral``: their own shapes and words.
    max_file_bytes, max_requests, max_embedding_inputs, max_files
        Limits of an upload, of a batch file, of an embeddings batch, and of files at a time.
    max_enqueued_tokens
        Queue limit of prompt tokens (characters // 4) a model: one for all, or by model.
    known_models, bad_body_keys
        What validation takes for a model (None: anything) and for an invalid parameter.
    list_all_errors
        Whether a failed validation names every bad line, or only the first.
    page_items, page_overlap
        At most so many items a page of a list, so many of which were on the page before.
    """

    answer: Answerer = default_answer
    faults: Faults = field(default_factory=Faults)
    http_error_fraction: float = 0.0
    malformed_fraction: float = 0.0
    seed: int = 0
    shuffle: bool = True
    steps_per_poll: int = 1
    in_progress_steps: int = 1
    instant: bool = False
    cancel_ran: float = 0.5
    require_key: str | Collection[str] | None = None
    per_key_projects: bool = False
    azure: bool = False
    unready_looks: int = 0
    output_blobs: bool = False
    dialect: DialectName = "openai"
    max_file_bytes: int = 200 * 1024 * 1024
    max_requests: int = 50_000
    max_embedding_inputs: int = 50_000
    max_files: int | None = None
    max_enqueued_tokens: int | Mapping[str, int] | None = None
    known_models: Collection[str] | None = None
    bad_body_keys: Collection[str] = ()
    list_all_errors: bool = True
    page_items: int | None = None
    page_overlap: int = 0

    executed: Counter[str] = field(init=False, default_factory=Counter)
    executed_bodies: Counter[str] = field(init=False, default_factory=Counter)
    requests: list[Call] = field(init=False, default_factory=list)
    crashes: list[BaseException] = field(init=False, default_factory=list)
    stopping: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Start with empty books."""
        self._lock = threading.RLock()
        self._files: dict[str, StoredFile] = {}
        self._batches: dict[str, Batch] = {}
        self._looked: Counter[str] = Counter()
        self._gone: set[str] = set()
        self._held: dict[str | None, str] = {}
        self._numbers = itertools.count(1)
        fractions = {"http_error": self.http_error_fraction, "malformed": self.malformed_fraction}
        for name, fraction in fractions.items():
            if fraction > 0:
                self.faults.add(name, fraction=fraction, seed=self.seed)

    # --- the ledger ------------------------------------------------------------------------------

    @property
    def files(self) -> dict[str, Json]:
        """Every file ever made, oldest first: the API's object, and what the API does not tell."""
        with self._lock:
            return {
                file.id: {
                    **file.as_json(),
                    "expires_after": file.expires_after,
                    "deleted": file.deleted,
                    "project": file.project,
                }
                for file in self._files.values()
            }

    @property
    def batches(self) -> dict[str, Json]:
        """Every batch ever made, oldest first: the API's object, its true status and project."""
        with self._lock:
            batches = list(self._batches.values())
        return {
            batch.id: {
                **show(batch),
                "true_status": batch.status,
                "ran": batch.ran,
                "output_expires_after": batch.output_expires_after,
                "project": batch.project,
                "faults": [fault.name for fault in batch.faults],
                "deleted": batch.id in self._gone,
            }
            for batch in batches
        }

    def content(self, file_id: str) -> bytes:
        """Return what a file holds (nothing, once deleted)."""
        with self._lock:
            return self._files[file_id].content

    def count(self, method: str, path: str, *, status: int | None = None) -> int:
        """Count the requests of a method on a path (or a glob of paths) in the log."""
        with self._lock:
            calls = list(self.requests)
        return sum(
            call.method == method and fnmatchcase(call.path, path) and status in (None, call.status)
            for call in calls
        )

    def ledger(self) -> Json:
        """Return all of the books as JSON."""
        with self._lock:
            log = [[c.method, c.path, c.status, list(c.faults)] for c in self.requests]
            executed, bodies = dict(self.executed), dict(self.executed_bodies)
        return {
            "executed": executed,
            "executed_bodies": bodies,
            "requests": log,
            "files": self.files,
            "batches": self.batches,
            "faults": {
                "fired": dict(self.faults.fired),
                "waiting": [fault.name for fault in self.faults.waiting],
            },
            "crashes": [repr(crash) for crash in self.crashes],
        }

    def note(self, call: Call) -> None:
        """Write one request in the log."""
        with self._lock:
            self.requests.append(call)

    def note_run(self, custom_id: str, body: Json) -> int:
        """Count one execution; return how often this custom_id was executed before."""
        key = body_hash(body)
        with self._lock:
            before = self.executed[custom_id]
            self.executed[custom_id] += 1
            self.executed_bodies[key] += 1
        return before

    # --- files -----------------------------------------------------------------------------------

    def create_file(
        self,
        filename: str,
        content: bytes,
        purpose: str,
        project: str,
        expires_after: Json | None = None,
    ) -> Json:
        """Take in an upload."""
        for_batches = purpose == PURPOSES[self.dialect]
        if self.dialect == "together" and not for_batches:
            raise ApiError(400, f"Invalid purpose {purpose!r}.", param="purpose")
        if for_batches and not filename.endswith(".jsonl"):
            message = f"Invalid file format for Batch API: {filename!r}. Must be .jsonl"
            raise ApiError(400, message, param="file")
        if for_batches and content.startswith(b"\xef\xbb\xbf"):
            raise ApiError(400, "The file starts with a UTF-8 byte order mark.", param="file")
        if len(content) > self.max_file_bytes:
            raise ApiError(413, f"The file is over {self.max_file_bytes} bytes.", param="file")
        alive = sum(not file.deleted for file in self._files.values())
        if self.max_files is not None and alive >= self.max_files:
            raise ApiError(400, "File quota exceeded: delete files first.", code="quota_exceeded")
        return self.store(filename, content, purpose, project, expires_after).as_json()

    def store(
        self,
        filename: str,
        content: bytes,
        purpose: str,
        project: str,
        expires_after: Json | None,
        made_id: str | None = None,
    ) -> StoredFile:
        now = int(time.time())
        lives = (expires_after or {}).get("seconds", FILE_DAYS * DAY_SECONDS)
        with self._lock:
            file = StoredFile(
                id=made_id or f"file-{next(self._numbers):06d}",
                filename=filename,
                purpose=purpose,
                content=content,
                bytes=len(content),
                created_at=now,
                expires_at=now + int(lives),
                expires_after=expires_after,
                project=project,
            )
            self._files[file.id] = file
        return file

    def file(self, file_id: str, project: str) -> StoredFile:
        """Return a file that this project may see."""
        with self._lock:
            file = self._files.get(file_id)
        if file is None or file.deleted or not self.may_see(file.project, project):
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return file

    def show_file(self, file_id: str, project: str) -> Json:
        """Return a file's object; it may take some looks until it is processed."""
        shown = self.file(file_id, project).as_json()
        self._looked[file_id] += 1
        return {**shown, "status": "pending"} if not self.is_ready(file_id) else shown

    def is_ready(self, file_id: str) -> bool:
        return self._looked[file_id] > self.unready_looks or file_id.endswith(("output", "error"))

    def list_files(self, query: Mapping[str, str], project: str) -> Json:
        """Return a page of the files, newest first unless ``order=asc``."""
        with self._lock:
            files = [f for f in self._files.values() if self.may_see(f.project, project)]
        purpose = query.get("purpose")
        shown = [f.as_json() for f in files if not f.deleted and purpose in (None, f.purpose)]
        newest_first = shown if query.get("order") == "asc" else shown[::-1]
        return self.page(newest_first, query, default=10_000, most=10_000)

    def page(self, items: list[Json], query: Mapping[str, str], *, default: int, most: int) -> Json:
        """Return a page of a list, as this server cuts them."""
        return page_of(items, query, default, most, self.page_items, self.page_overlap)

    def cut_file(self, file_id: str, keep: float) -> None:
        """Lose the end of a file, as when an upload breaks off and is kept all the same."""
        with self._lock:
            file = self._files[file_id]
            content = file.content[: int(len(file.content) * keep)]
            self._files[file_id] = replace(file, content=content, bytes=len(content))

    def delete_file(self, file_id: str, project: str) -> Json:
        """Delete a file; a batch that is already under way keeps its own copy."""
        file = self.file(file_id, project)
        with self._lock:
            self._files[file_id] = replace(file, deleted=True, content=b"")
        return {"id": file_id, "object": "file", "deleted": True}

    def may_see(self, owner: str, project: str) -> bool:
        return owner == project or not self.per_key_projects


def page_of(
    items: list[Json],
    query: Mapping[str, str],
    default: int,
    most: int,
    shorter: int | None = None,
    overlap: int = 0,
) -> Json:
    """Return the page of a list that ``limit`` and ``after`` ask for, or a page's number."""
    asked = query.get("limit") or query.get("page_size", str(default))
    if not re.fullmatch(r"\d+", asked) or not 1 <= int(asked) <= most:
        message = f"Invalid 'limit': expected an integer from 1 to {most}, got {asked!r}."
        raise ApiError(400, message, code="invalid_value", param="limit")
    size = min(int(asked), shorter or most)
    first = int(query.get("page", 0)) * size
    if after := query.get("after"):
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise ApiError(404, f"No such object: {after!r}", param="after")
        first = max(places[0] + 1 - overlap, 0)
    page = items[first : first + size]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": first + len(page) < len(items),
    }
