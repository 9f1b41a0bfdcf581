"""Read the reply of one live call, and write it as a Batch line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from frameenrich.answers.error_text import body_error
from frameenrich.jsonl import encode
from frameenrich.model import TIMED_OUT, Json
from frameenrich.providers.live.rate_limit import wanted_pause
from frameenrich.text import without_secrets

UNAUTHORIZED = 401


_TOO_MANY = 429


_BROKEN = 500


_GOOD = range(200, 300)


_ERRORS = range(400, 600)


# A time-out, a conflict and a rate limit: the statuses below 500 that pass by themselves.
_SOON_BETTER = frozenset({408, 409, _TOO_MANY})


# A gateway's words for a server behind it that may still be at work: HTTP's, and Cloudflare's 524.
_MAY_HAVE_RUN = frozenset({408, 504, 524})


LATE_SECONDS = 30.0
"""A call that breaks only after so long was most likely being answered: proxies close such."""


_TOO_BUSY = frozenset({_TOO_MANY, 503, 529})


_ELSEWHERE = frozenset({*range(300, 400), 403, 404, 405})
"""Statuses of a wrong address or key, and sometimes of one bad request at a right one."""


_LONGEST_REASON = 300


class _Tokens(msgspec.Struct):
    total_tokens: int | None = None


class _Body(msgspec.Struct):
    usage: _Tokens | None = None
    error: Json = None


_decode_body = msgspec.json.Decoder(_Body).decode


@dataclass(slots=True)
class Reply:
    """The reply to one call.

    ``status`` is the HTTP status, 0 where no answer came. ``fault`` is why it is no answer, as
    (code, message). ``wait`` is for how long the server wants to be left alone, in seconds.
    """

    status: int
    body: bytes = b""
    request_id: str = ""
    fault: tuple[str, str] | None = None
    used_tokens: int | None = None
    wait: float | None = None
    unreachable: bool = False
    begun: bool = False
    """Whether a success began, and broke off: the request ran, and its answer is lost."""

    @property
    def limited(self) -> bool:
        """Tell whether the server answers, but can take no more just now."""
        # A 5xx with Retry-After is a server that is busy, not broken.
        must_wait = self.status >= _BROKEN and self.wait is not None
        return self.fault is not None and (self.status == _TOO_MANY or must_wait)

    @property
    def overloaded(self) -> bool:
        """Tell whether fewer requests at once might have been answered."""
        return self.timed_out or self.limited or self.status in _TOO_BUSY

    @property
    def timed_out(self) -> bool:
        """Tell whether the server may have answered, and charged for it, too late for us."""
        return self.status == 0 and self.fault is not None and self.fault[0] == TIMED_OUT

    def may_have_run(self, seconds: float) -> bool:
        """Tell whether a call that failed after so long may have been answered at the server."""
        late = self.status in _MAY_HAVE_RUN or seconds >= LATE_SECONDS
        return late and self.passing and not self.limited

    @property
    def out_of_quota(self) -> bool:
        """Tell whether there is no money or quota left, which no waiting mends."""
        return self.status == _TOO_MANY and self.fault is not None and "quota" in self.fault[0]

    @property
    def passing(self) -> bool:
        """Tell whether the same request may well be answered a little later."""
        if self.fault is None or self.out_of_quota or self.timed_out:
            return False
        # No reply, or a 200 whose body is no answer: often a proxy on the way.
        unanswered = self.status == 0 or self.status in _GOOD
        return unanswered or self.status >= _BROKEN or self.status in _SOON_BETTER

    @property
    def no_answer(self) -> bool:
        """Tell whether the server was content and sent something else: a page, a text, an error."""
        return self.fault is not None and self.status in _GOOD

    @property
    def maybe_server_fault(self) -> bool:
        """Tell whether the reason may be everybody's: a server that is down, a wrong address."""
        return self.passing or self.status in _ELSEWHERE

    @property
    def message(self) -> str:
        """The fault, as the end of a sentence."""
        code, message = self.fault or ("", "it answered")
        return f"HTTP {self.status}, {message}" if self.status else f"{code}, {message}"

    def line(self, custom_id: str, secrets: Iterable[str | None] = ()) -> bytes:
        """Return the reply as a line of a batch's output or error file.

        Examples
        --------
        >>> json.loads(no_reply("timeout", "no answer").line("row-1"))["error"]
        {'code': 'timeout', 'message': 'no answer'}
        """
        head = b'{"id":%b,"custom_id":%b,"response":' % (
            encode(f"live-{custom_id}"),
            encode(custom_id),
        )
        if self.fault is None:
            return head + self._response(self.body) + b',"error":null}'
        error = encode(dict(zip(("code", "message"), self.fault, strict=True)))
        if self.status == 0:
            tail = b'null,"error":' + error + b"}"
        else:
            body = self.body if _is_object(self.body) else b'{"error":' + error + b"}"
            tail = self._response(body) + b',"error":null}'
        return head + without_secrets(tail, secrets)  # a server may tell what key it did not like

    def _response(self, body: bytes) -> bytes:
        # A line end stands only between a JSON text's tokens, where a blank means the same.
        body = body.replace(b"\n", b" ").replace(b"\r", b" ")
        return b'{"status_code":%d,"request_id":%b,"body":%b}' % (
            self.status,
            encode(self.request_id),
            body,
        )


def read_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Read an HTTP response: an answer, or a fault and how long to wait.

    Examples
    --------
    >>> read_reply(200, {}, b'{"usage": {"total_tokens": 12}}').used_tokens
    12
    >>> read_reply(502, {"Content-Type": "text/plain"}, b"Busy.").fault
    ('no_json', 'it answered with text/plain, 5 bytes that are no JSON object: Busy')
    """
    request_id = headers.get("x-request-id", "")
    if status in _GOOD:
        try:
            # Most replies are good: two members are read, and the body goes to disk as it came.
            opened = _decode_body(body)
            if not opened.error:
                used = opened.usage.total_tokens if opened.usage else None
                return Reply(status, body, request_id, used_tokens=used)
        except msgspec.DecodeError:  # or an unusual one: a lone surrogate, another kind of usage
            pass
    document = _loads(body)
    error = document.get("error") if isinstance(document, dict) else None
    if status in _GOOD and isinstance(document, dict) and not error:
        return Reply(status, body, request_id)
    if isinstance(document, dict):
        fault = _fault(error or document)
        # Some gateways answer 200 and put the real status into the error.
        code = error.get("code") if isinstance(error, dict) and status in _GOOD else None
        status = code if isinstance(code, int) and code in _ERRORS else status
    else:
        kind = headers.get("Content-Type", "something").partition(";")[0]
        text = f"it answered with {kind}, {len(body)} bytes that are no JSON object"
        # Half of an object is an answer's, and no word about it.
        cut = document is None and body.lstrip().startswith((b"{", b"["))
        said = None if cut else body_error(document or body.decode(errors="replace"))
        fault = ("no_json", f"{text}: {said}"[:_LONGEST_REASON].rstrip(".") if said else text)
    # Half of an object; a page of HTML is a gateway's, which may have passed nothing on.
    begun = status in _GOOD and document is None and body.lstrip().startswith(b"{")
    wait = wanted_pause(headers, time.time())
    return Reply(status, body, request_id, fault, wait=wait, begun=begun)


def no_reply(code: str, message: str, *, unreachable: bool = False, begun: bool = False) -> Reply:
    """Make the reply of a call that got no response, or only the beginning of one."""
    return Reply(0, fault=(code, message), unreachable=unreachable, begun=begun)


def _is_object(body: bytes) -> bool:
    return isinstance(_loads(body), dict)


def _loads(body: bytes) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _fault(error: Json) -> tuple[str, str]:
    if not isinstance(error, dict):
        return "error", str(error)[:_LONGEST_REASON]
    code = error.get("code") or error.get("type") or "error"
    return str(code), str(error.get("message") or error)[:_LONGEST_REASON].rstrip(".")
