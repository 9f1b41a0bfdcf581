"""A real HTTP server on loopback that speaks OpenAI's Files and Batches API, with faults on demand.

>>> from batch_server import BatchServer
>>> with BatchServer(instant=True) as server:
...     base_url = server.base_url  # give it to openai.OpenAI(base_url=..., api_key="test")
...     fault = server.faults.add("expired", ran=0.25)

What is served: ``/v1/files``, ``/v1/batches`` and, live, ``/v1/chat/completions``,
``/v1/responses``, ``/v1/embeddings``, ``/v1/completions`` and ``/v1/moderations``; the same under
``/openai/v1/...``, and with ``azure=True`` under ``/openai/...?api-version=`` as well.

A row is *executed* (``server.executed[custom_id]``, ``server.executed_bodies[body_hash(body)]``)
when a batch runs its line, whatever comes back and whether the line is then lost; never by a batch
that fails validation, nor by a row that expired or was cancelled before its turn. A live call is
booked under its ``X-Custom-Id`` or ``X-Client-Request-Id`` header, else under ``live:<hash>``.
A custom_id of ours counts, and is matched, without the tag of its job, which is random.

Faults
------
``server.faults.add(name, times=, where=, fraction=, seed=, **options)``. *http* and *batch* faults
strike once unless told otherwise (``times=3``, ``times="always"``). `where` is a glob, a collection
of exact names, or a callable: for http of ``"POST /v1/batches"`` (callable: of the request); for
batch of its id, input file id, file name or a metadata value (callable: of the batch as JSON); for
row of the custom_id or the user message (callable: of ``custom_id, body``). Numbers in brackets are
those of tests/README.md, "Faults". ``server.faults.fired`` counts what struck.

==============================  =====  ===========================================================
name (options)                  scope  what happens
==============================  =====  ===========================================================
``http_500`` (code)             http   500 before anything is accepted, any route
``http_503`` (code)             http   503 likewise
``rate_limited``                http   429 with ``Retry-After`` (retry_after, code)
``unauthorized``                http   401
``closed_before``               http   the connection closes, nothing was accepted
``accepted_then_500``           http   500 though the work was done (default: create of a batch)
``accepted_then_closed``        http   connection closes though the work was done (default: create)
``cannot_find_file``            http   create answers 400 "Cannot find file"
``batch_not_found``             http   404 for a batch, when it is polled
``html_502``                    http   [12] 502 with an HTML page (default: polling)
``html_429``                    http   429 with an HTML page though the work was done (create)
``not_json``                    http   [12] 200 whose body is not JSON (content_type)
``odd_body``                    http   200 with another body, though the work was done (body)
``unlisted``                    http   a list lacks what is newest in it (newest)
``no_route``                    http   the server has no such route, or none for GET (status)
``cut_upload``                  http   half of a file is kept, and the upload answers 500 (keep)
``file_quota_exceeded``         http   an upload is refused for good (status)
``truncated_download``          http   [11] Content-Length says more than is sent (keep)
``short_download``              http   [11] Content-Length agrees, the file's ``bytes`` says more
``download_without_length``     http   no fault: a chunked download with no Content-Length
``half_written``                http   half of a file's lines come, and its size is null (less)
``ration_spent``                http   no fault: the answer's headers say it was the last (reset)
``slow``                        http   waits before the work (seconds)
``slow_answer``                 http   waits after the work, before the answer (seconds)
``all_lines_failed``            batch  [1] all in the error file, output_file_id null (status)
``error_file_id_empty_string``  batch  [2] ``error_file_id`` is ``""`` on a clean batch
``empty_error_file``            batch  [2] ``error_file_id`` names an empty file
``late_files``                  batch  has ended, and its file ids are null for a while (looks)
``empty_output_file``           batch  [2] ``output_file_id`` names an empty file; lines are lost
``expired``                     batch  [6] expires; `batch_expired` lines for the rest (ran, lines)
``expired_silently``            batch  [6] expires; no lines for the rest (ran)
``cancelled``                   batch  [7] somebody else cancels it; partial output (ran, lines)
``stuck``                       batch  [13] stays in a status for ever (status="in_progress")
``fails_after_validating``      batch  `failed` after some steps (steps, code, message)
``token_limit_exceeded``        batch  `failed` after validation: the model's queue is full
``unknown_status``              batch  shows another word for a status (word, status)
``null_counts``                 batch  members of request_counts are null
``null_request_counts``         batch  request_counts is null
``null_errors``                 batch  fields of ``errors`` and of its entries are null
``null_custom_id_line``         batch  [8] one line more, with ``custom_id: null``
``stranger_line``               batch  [8] one line more, that nobody asked for
``http_error``                  row    the row fails, in the error file (status, code, message)
``http_error_in_output``        row    [3] the same, in the output file, with ``error: null``
``malformed``                   row    text that is no JSON (content)
``fenced``                      row    the answer inside a Markdown fence
``chatty``                      row    the answer after "Sure! Here is your answer:"
``refused``                     row    ``message.refusal`` (message)
``truncated``                   row    half of the answer, ``finish_reason: length``
``empty``                       row    content "" (content=None: null)
``content_filter``              row    ``finish_reason: content_filter``
``missing``                     row    runs, and no line comes
``expired_line``                row    does not run; a `batch_expired` line in a completed batch
``status_zero``                 row    [4] ``status_code: 0, body: {}``, counted as completed
``string_body``                 row    [5] ``response.body`` is a JSON string
``no_response_key``             row    [5] the line has no ``response``
``no_error_key``                row    [5] the line has no ``error``
``raw_separators``              row    [9] raw U+2028, U+2029 and U+0085 inside strings
``null_custom_id``              row    [8] the row's own line has ``custom_id: null`` (once)
``duplicate_line``              row    [8] the same line twice (once)
``conflicting_line``            row    [8] two lines that differ (once; as_error: one in each file)
``unparseable_line``            row    [10] the line is cut in the middle (once)
``not_utf8_line``               row    [10] a byte that is not UTF-8, in an extra member (once)
==============================  =====  ===========================================================

Row faults from ``http_error`` to ``content_filter`` (but the one of the output file) exclude each
other and meet live calls too. "(once)" row faults strike one row unless told otherwise, the other
row faults every row that matches. `expired`, `cancelled`, `fails_after_validating` and
`token_limit_exceeded` exclude each other. A batch fault sticks to the first batch that matches when
it is created or takes a step, so that it may be added while the batch runs.
"""

from .answers import default_answer, unit_vector
from .app import BatchServer
from .books import Call
from .faults import KINDS, Fault, Faults, make_fault
from .reply import Reply, body_hash, pick, user_text
from .rows import row_name

__all__ = [
    "KINDS",
    "BatchServer",
    "Call",
    "Fault",
    "Faults",
    "Reply",
    "body_hash",
    "default_answer",
    "make_fault",
    "pick",
    "row_name",
    "unit_vector",
    "user_text",
]
