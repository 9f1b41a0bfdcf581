"""Send one row live before a batch, so that a refusal shows before all rows are sent.

The row is a small job of its own, like a pilot, and the batch takes its answer over. So a kill
loses no answer; only one during the call itself may cost the row twice.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from frameenrich.answers.judge import read_response
from frameenrich.answers.output import Output
from frameenrich.errors import ParameterError, ProviderError, StoreError, warn_user
from frameenrich.identity.dedupe import duplicates, short_hashes
from frameenrich.identity.hash_table import HashTable
from frameenrich.identity.hashes import request_hash
from frameenrich.jsonl import body_of, split_lines
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.reuse import same_route
from frameenrich.model import JobSpec, Response, RowStatus
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.ready import open_requests
from frameenrich.prepare.ready_job import KEY, draft_of_requests, ready_job_id
from frameenrich.providers.protocol import Provider, RetryDeadline, retry_for
from frameenrich.rendering.caching import unmarked
from frameenrich.store.folder import JobFolder, JobPath, job_folders
from frameenrich.store.store import Store
from frameenrich.text import shortened
from frameenrich.verbs.job import Job

FROM_REQUESTS = 1_000
"""Jobs of at least so many requests are probed, unless ``probe=`` says otherwise."""


_WITNESSES = 2
"""Number of other rows that have to be refused, too: one row alone may be to blame."""


_TRY_AGAIN_SECONDS = 5.0
"""How long to retry where the server is busy or broken, which proves nothing."""


_ANSWER_SECONDS = 60.0
"""How long to wait for an answer after that: a model that thinks takes longer than five seconds,
and a row that is hung up on is paid twice, here and in the batch."""


_READ_ROWS = 1_000


@dataclass(frozen=True)
class Probe:
    """Sends some requests of a draft live before the batch is sent."""

    spec: JobSpec
    output: Output
    store: Store
    live: Provider

    def ask(self, draft: JobDraft, known: Sequence[HashTable]) -> list[JobFolder]:
        """Send one request of a draft live, and others where it is refused.

        Returns
        -------
        list of JobFolder
            The small jobs that were sent, the newest first; none where every request is known.

        Raises
        ------
        ParameterError
            The server refuses a parameter, the model or the schema, whichever row asks.
        """
        lines = list(islice(unknown_lines(draft, self.spec.url, known), 1 + _WITNESSES))
        if not lines:
            return []
        # One end for the row and its witnesses, as other submits wait meanwhile.
        end = time.monotonic() + _TRY_AGAIN_SECONDS + _ANSWER_SECONDS
        sent = [self._answered(lines[:1], end)]
        refusal = _refusal(sent[0], lines[0])
        if refusal is not None and len(lines) > 1:
            # Only now: where the first row is answered, no other is paid at the live price.
            sent.insert(0, self._answered(lines[1:], end))
            if _refused(sent[0]) < len(lines) - 1:
                refusal = None
        if refusal is not None:
            raise ParameterError(
                f"The server refuses what every row of this job would ask, as {len(lines)} asked "
                f"live show: {shortened(refusal, 300)}",
                "Change what it names and submit again: no batch was sent. probe=False sends it "
                "all the same.",
                spec=self.spec,
            )
        return sent

    def _answered(self, lines: Sequence[bytes], end: float) -> JobFolder:
        """Send some requests as a small job, or go on with the one that was interrupted.

        An answer that is not there at `end`, by ``time.monotonic()``, is waited for no longer.
        """
        # What belongs to the batch (its metadata, window, queue and cap) is no part of the probe.
        plain = replace(
            self.spec,
            messages=(),
            key=(KEY,),
            pilot=True,
            provider=self.live.name,
            metadata={},
            completion_window=None,
            max_cost=None,
            max_enqueued_tokens=None,
            image=(),
        )
        with open_requests(list(lines)) as ready:
            survey = ready.survey(self.spec.url, self.live.limits)
            job_id = ready_job_id(survey, plain)
            if self.store.has(job_id) and JobPath(self.store, job_id).read().settled:
                # The server may accept it by now: an old refusal must not come from disk for ever.
                job_id = ready_job_id(survey, plain, secrets.token_hex(8))
            if not self.store.has(job_id):
                with draft_of_requests(ready, survey, plain, self.store, self.live.limits) as draft:
                    draft.complete(job_id)
                    draft.commit()
        folder = JobPath(self.store, job_id).open()
        # Trying again always has its seconds: witnesses of a row that was refused late are asked.
        last = max(end, time.monotonic() + _TRY_AGAIN_SECONDS)
        answer_seconds = last - time.monotonic() - _TRY_AGAIN_SECONDS
        patience = RetryDeadline(answer_seconds=answer_seconds)
        try:
            with retry_for(_TRY_AGAIN_SECONDS, patience):
                Job(folder, output=self.output, provider=self.live).send()
        except ProviderError:
            # It is down, busy or has no such call: that says nothing of the batch. Only a call that
            # is out lasts so long.
            if time.monotonic() >= last:
                warn_user(
                    "A row that was asked live first had no answer in time. It goes out with the "
                    "batch, so it may be paid twice; probe=False sends the batch at once."
                )
        return folder


def is_answered(store: Store, spec: JobSpec) -> bool:
    """Tell whether the store has an ok answer of this provider, model, parameters and schema."""
    for folder in job_folders(store):
        own = folder.spec
        alike = (own.params, own.output.schema) == (spec.params, spec.output.schema)
        # A damaged job answers nothing.
        with contextlib.suppress(StoreError):
            if alike and same_route(own, spec) and _has_ok(folder):
                return True
    return False


def _has_ok(folder: JobFolder) -> bool:
    with folder.reading_sidecar() as file:
        # One ok answer is enough, so only the first rows are judged, whatever the job's size.
        sidecar = file.read_row_group(0).slice(0, _READ_ROWS)
    found = read_results(folder, Output(folder.spec.output), sidecar=sidecar)
    return RowStatus.OK in found.table.counts(found.slots[found.slots >= 0])


def unknown_lines(draft: JobDraft, url: str, known: Sequence[HashTable]) -> Iterator[bytes]:
    """Yield the draft's requests that are in none of some tables, each once."""
    # Only those that may repeat are remembered: a large frame has as many hashes as rows.
    repeats, seen = frozenset(duplicates(draft.hashes).tolist()), set[bytes]()
    for line in draft.written_lines():
        own = request_hash(url, unmarked(draft.spec, body_of(line)))
        if own in seen or any(table.has(own) for table in known):
            continue
        if int(short_hashes(own)[0]) in repeats:
            seen.add(own)
        yield line


def _responses(folder: JobFolder) -> Iterator[Response]:
    for shard in folder.all_shards():
        for line in split_lines(shard.read_responses()):
            response = read_response(line)
            if response is not None:
                yield response


def _refused(folder: JobFolder) -> int:
    """Count a probe's requests that were refused for what all rows have in common."""
    bodies = {}
    for shard in folder.all_shards():
        with shard.open_requests() as lines:
            for line in lines:
                request = json.loads(line)
                bodies[request["custom_id"]] = request["body"]
    return sum(
        _reason(response, bodies.get(response.custom_id, {})) is not None
        for response in _responses(folder)
    )


def _refusal(folder: JobFolder, line: bytes) -> str | None:
    body = json.loads(line)["body"]
    return next((reason for each in _responses(folder) if (reason := _reason(each, body))), None)


_CODES = frozenset(
    {
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
        "model_not_found",
        "invalid_json_schema",
    }
)


_CONTENT = frozenset({"messages", "input", "prompt"})
"""Parts of a body that differ from row to row: what is wrong with them may be the row's fault."""


def _reason(response: Response, body: Mapping[str, Any]) -> str | None:
    """Return the server's message where it refused what all rows have in common."""
    # Only these say that the request itself is refused; others are keys, limits or faults.
    if response.status_code not in (400, 422):
        return None
    said = response.body.get("error", response.body) if isinstance(response.body, dict) else {}
    said = said if isinstance(said, dict) else {"message": str(said)}
    message = str(said.get("message") or response.error or said)
    parameter = str(said.get("param") or "").partition(".")[0].partition("[")[0]
    if parameter in _CONTENT:
        return None
    names = {*body, "schema", "json_schema"} - _CONTENT
    named = parameter in names or said.get("code") in _CODES
    if named or any(word in message for word in (f"'{n}'" for n in names)):
        return message
    # Some servers name the parameter in the sentence only, without quotes.
    words = {word.strip(".,:;'\"`()[]").lower() for word in message.split()}
    return message if words & names else None
