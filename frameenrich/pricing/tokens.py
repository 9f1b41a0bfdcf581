"""Count the tokens of requests offline, as OpenAI's models do.

The vocabularies come in the wheel of `splintr-rs` (the extra ``frameenrich[cost]``); without it a
text's bytes bound its tokens. Texts are counted exactly where the model's vocabulary is known. What
stands around them is counted as OpenAI documents it: three tokens a message beside its role and
text, one for a name, three for the answer to begin with
(https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken). A schema or
a tool is counted by its JSON, an image as the most that one can take.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import msgspec

from frameenrich.model import BYTES_PER_TOKEN
from frameenrich.text import without_surrogates

_VOCABULARIES = (
    (r"(gpt-4o|gpt-4\.1|gpt-4\.5|gpt-[5-9]|gpt-oss|chatgpt-4o|o\d)", "o200k_base"),
    (r"(gpt-4|gpt-3\.5|text-embedding-)", "cl100k_base"),
)
"""As tiktoken's ``model.py`` has it: the first that a model's name begins with."""


# A model that is not known is estimated with OpenAI's newest vocabulary.
_OTHERS = "o200k_base"


_MESSAGE_TOKENS = 3


_NAME_TOKENS = 1


_REPLY_TOKENS = 3


_LEGACY_CAP = 16
"""What ``/v1/completions`` takes for ``max_tokens`` where none is given."""


_MOST_TILES = 8


_MOST_PATCHES = 1536


_TILED = (
    # The first match counts, so gpt-4o-mini comes before gpt-4o, which it begins with.
    (r"gpt-4o-mini", 2833, 5667),
    (r"(gpt-4o|gpt-4\.1$|gpt-4\.1-20|gpt-4\.5|gpt-4-turbo|chatgpt-4o)", 85, 170),
    (r"(gpt-5(-chat|-20|$))", 70, 140),
    (r"(o1|o3)", 75, 150),
)


_PATCHED = (
    (r"(gpt-4\.1-mini|gpt-5-mini)", 1.62),
    (r"(gpt-4\.1-nano|gpt-5-nano)", 2.46),
    (r"o4-mini", 1.72),
)
"""Image tokens (https://platform.openai.com/docs/guides/images-vision): a base and so many for each
of at most eight tiles, or a multiple of at most 1,536 patches, the same at low detail."""


class Counted(NamedTuple):
    """One request's tokens.

    ``cap`` is the most its answer may have (None where it says nothing), ``uncounted`` how many
    images it has that nobody knows the tokens of. ``prefix_tokens`` are those of the system
    messages that it begins with, ``mark`` the kind of mark by which a server is to cache them.
    """

    model: str
    prompt_tokens: int
    cap: int | None
    uncounted: int = 0
    prefix_tokens: int = 0
    mark: str = ""


class _Url(msgspec.Struct):
    detail: str | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""
    image_url: str | _Url | None = None
    detail: str | None = None
    cache_control: Any = None
    prompt_cache_breakpoint: Any = None

    @property
    def mark(self) -> str:
        """The kind of cache mark that the part carries."""
        explicit = "breakpoint" if self.prompt_cache_breakpoint is not None else ""
        return "cache_control" if self.cache_control is not None else explicit

    @property
    def low(self) -> bool:
        inner = self.image_url.detail if isinstance(self.image_url, _Url) else None
        return "low" in (self.detail, inner)


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None
    name: str | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message] | None = None
    input: str | list[_Message] | None = None
    prompt: str | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: int | None = None
    # Raw, as a schema or a tool is counted by its JSON and not looked into.
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()


LARGEST_CAP = 2**31 - 1
"""The most tokens that a cap may be; servers keep it in 32 bits, and no answer is as long."""


def whole_cap(cap: Any) -> int | None:
    """Return a cap as a number of tokens, also one that was written as 1000.0."""
    # `True` is no 1, and a number beyond all answers bounds none.
    if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 < cap <= LARGEST_CAP:
        return None
    return int(cap) if cap == int(cap) else None


@lru_cache
def vocabulary(model: str) -> tuple[str, bool]:
    """Return the vocabulary a model is counted with, and whether it is the model's own.

    Examples
    --------
    >>> vocabulary("gpt-4o-mini"), vocabulary("text-embedding-3-small")
    (('o200k_base', True), ('cl100k_base', True))
    >>> vocabulary("my-deployment")
    ('o200k_base', False)
    """
    name = model.removeprefix("ft:").lower()
    for pattern, own in _VOCABULARIES:
        if re.match(pattern, name):
            return own, True
    return _OTHERS, False


_SYSTEM = frozenset({"system", "developer"})


_BODY = b',"body":'


def count_line(line: bytes, counter: TokenCounter) -> Counted:
    """Return the tokens of a line of a batch file, which is ours and ends with its body."""
    start = line.index(_BODY) + len(_BODY)
    return counter.count(line.rstrip()[start:-1])


# `max_cost` is held by the most that can be paid: these tokens and the answers' cap, never a guess
# at the average. Exact where the model's vocabulary is known, else an estimate.
class TokenCounter:
    """Counts requests to one endpoint; what they have in common is counted once.

    Parameters
    ----------
    endpoint : str
        Such as ``/v1/chat/completions``.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._schemas: dict[tuple[str, bytes, bytes, bytes], int] = {}

    def count(self, body: bytes) -> Counted:
        """Return the tokens of one request's JSON body."""
        request = _read(body)
        texts = _texts(vocabulary(request.model)[0])
        turns = request.messages if request.messages is not None else request.input
        # Only messages have tokens around them; a prompt or an input is its text alone.
        if not isinstance(turns, list):
            alone = request.prompt if turns is None else turns
            return Counted(request.model, texts.count(alone or ""), self._cap(request))
        tokens, uncounted, prefix, mark = _REPLY_TOKENS, 0, 0, ""
        leading = True
        for message in turns:
            own, unknown = _count_message(message, texts, request.model)
            tokens, uncounted = tokens + own, uncounted + unknown
            # A cache holds a prompt's beginning only, so the first other message ends it.
            leading = leading and message.role in _SYSTEM
            prefix += own if leading else 0
            if isinstance(message.content, list):
                mark = mark or next((part.mark for part in message.content if part.mark), "")
        tokens += self._count_schemas(request, texts)
        return Counted(request.model, tokens, self._cap(request), uncounted, prefix, mark)

    def _cap(self, request: _Body) -> int | None:
        if self._endpoint == "/v1/chat/completions":
            most = whole_cap(request.max_completion_tokens) or whole_cap(request.max_tokens)
            return most and most * (request.n or 1)  # the prompt is paid once, each answer again
        if self._endpoint == "/v1/responses":
            return whole_cap(request.max_output_tokens)
        # This endpoint is the only one with a cap where the request sets none.
        if self._endpoint == "/v1/completions":
            return whole_cap(request.max_tokens) or _LEGACY_CAP
        return 0  # a vector, or a verdict

    def _count_schemas(self, request: _Body, texts: _Texts) -> int:
        schemas = (bytes(request.response_format), bytes(request.text), bytes(request.tools))
        known = (texts.name, *schemas)
        # Mostly one schema for a whole job.
        if known not in self._schemas:
            self._schemas[known] = sum(texts.count(raw.decode()) for raw in schemas)
        return self._schemas[known]


def _read(body: bytes) -> _Body:
    try:
        return msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError:  # a lone surrogate, which only the standard library lets through
        request = json.loads(body)
        rest = {name: request.pop(name, None) for name in ("response_format", "text", "tools")}
        raw = {n: msgspec.Raw(json.dumps(v).encode()) for n, v in rest.items() if v is not None}
        return msgspec.structs.replace(msgspec.convert(request, _Body), **raw)


def _count_message(message: _Message, texts: _Texts, model: str) -> tuple[int, int]:
    """Return a message's tokens, and how many images in it cannot be counted."""
    tokens, uncounted = _MESSAGE_TOKENS + texts.count(message.role), 0
    if message.name is not None:
        tokens += _NAME_TOKENS + texts.count(message.name)
    if not isinstance(message.content, list):
        return tokens + texts.count(message.content or ""), 0
    for part in message.content:
        most = image_tokens(model, low=part.low) if part.image_url is not None else 0
        uncounted += most is None
        tokens += texts.count(part.text) + (most or 0)
    return tokens, uncounted


@lru_cache
def image_tokens(model: str, *, low: bool = False) -> int | None:
    """Return the most tokens that an image can take; None where the model's rule is not known.

    Examples
    --------
    >>> image_tokens("gpt-4o"), image_tokens("gpt-4o", low=True), image_tokens("llava")
    (1445, 85, None)
    """
    name = model.removeprefix("ft:").lower()
    for pattern, multiple in _PATCHED:
        if re.match(pattern, name):
            return round(_MOST_PATCHES * multiple)
    for pattern, base, tile in _TILED:
        if re.match(pattern, name):
            return base if low else base + tile * _MOST_TILES
    return None


@lru_cache(maxsize=1)
def counts_bytes() -> bool:
    """Tell whether no tokenizer is installed, so that texts are counted by their UTF-8 bytes.

    Each token of the vocabularies stands for a byte or more, so that this is the most they can be.
    """
    # Looked up, not imported: the import is left to the first text.
    return importlib.util.find_spec("splintr") is None


class _Texts:
    """One vocabulary. Texts that look like special tokens are texts, as they are to the API."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._known = lru_cache(maxsize=16)(
            self._encoded
        )  # a system message is the same in every row

    @cached_property
    def _tokenizer(self) -> Any:
        # Read on first use, as an exact count is not wanted in every session.
        from splintr import Tokenizer  # noqa: PLC0415 - an extra

        return Tokenizer.from_pretrained(self.name)

    def count(self, text: str) -> int:
        """Return the text's tokens."""
        return self._known(text) if text else 0

    def _encoded(self, text: str) -> int:
        if counts_bytes():
            return len(text.encode("utf-8", "surrogatepass"))
        try:
            return len(self._tokenizer.encode_ordinary(text))
        except UnicodeEncodeError:  # half a character, which arrives as U+FFFD
            whole = without_surrogates(text)
            return len(self._tokenizer.encode_ordinary(whole))


def count_text(text: str, model: str) -> int:
    """Count a text's tokens; without a tokenizer, estimate them from its length.

    Examples
    --------
    >>> count_text("Kitchen", "gpt-4o-mini") <= 2
    True
    """
    count = _texts(vocabulary(model)[0]).count(text)
    return -(-count // BYTES_PER_TOKEN) if counts_bytes() else count


@lru_cache(maxsize=4)
def _texts(name: str) -> _Texts:
    return _Texts(name)
