"""Write rendered rows as request lines: the exact bytes of batch files.

The JSON around the varying strings is the same for every row, so it is serialised once and a
line is a join of constant and varying pieces.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from frameenrich.identity.hashes import body_texts, request_hash, rest_hash, texts_hash
from frameenrich.jsonl import encode, request_line
from frameenrich.model import JobSpec, Json
from frameenrich.rendering.answer_format import answer_format
from frameenrich.rendering.caching import unmarked, with_marks


@dataclass(frozen=True, slots=True)
class RequestBodies:
    """JSON bodies of some requests, kept in pieces and joined when one is read.

    ``pieces`` are the same in each; between them stand a request's own ``contents``, which are
    given message by message.
    """

    pieces: Sequence[bytes]
    contents: Sequence[Sequence[bytes]]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> bytes:
        (body,) = self.take([position])
        return body

    def __iter__(self) -> Iterator[bytes]:
        parts: list[Iterable[bytes]] = [itertools.repeat(self.pieces[0], self.count)]
        for column, piece in zip(self.contents, self.pieces[1:], strict=True):
            parts += (column, itertools.repeat(piece, self.count))
        return map(b"".join, zip(*parts, strict=True))

    def take(self, positions: Sequence[int]) -> RequestBodies:
        """Return the bodies at these positions, in this order."""
        columns = [[column[i] for i in positions] for column in self.contents]
        return RequestBodies(self.pieces, columns, len(positions))


EMPTY_BODIES = RequestBodies((b"",), (), 0)


class BodyTemplate:
    """Turn rendered rows into request bodies.

    Parameters
    ----------
    spec : JobSpec
        Decides everything in a request but the row's own text.
    constants : Mapping[int, bytes], optional
        The JSON of messages that are the same in every row, by their index; `bodies` takes no
        contents for them.
    """

    def __init__(self, spec: JobSpec, constants: Mapping[int, bytes] | None = None) -> None:
        self._spec = spec
        # Serialise one body with placeholders for the texts and cut it there: a row is then a join.
        marks = _unused_marks(spec)
        body = request_body(spec, marks)
        # Cache marks change what an answer costs, not the answer: they are sent, never hashed.
        hashed, sent = encode(body), encode(with_marks(spec, body))
        slots = [encode(mark) for mark in marks]
        self._pieces = _folded(_split(sent, slots), constants or {})
        self._hashed = _folded(_split(hashed, slots), constants or {})
        self.same_texts = _same_texts(body_texts(hashed), slots, constants or {})
        """The texts that all requests share: before, between and after the varying ones."""
        self.rest = rest_hash(spec.url, hashed)
        """The hash of all of a body but its texts; only for requests without images."""

    def with_images(self, text: str, image_urls: Sequence[str]) -> bytes:
        """Encode the content of the message that carries a row's images."""
        return encode(_with_images(self._spec, text, image_urls) if image_urls else text)

    def bodies(self, contents: Sequence[Sequence[bytes]], count: int) -> RequestBodies:
        """Return the bodies of `count` rows, given the JSON of each message that varies."""
        return RequestBodies(self._pieces, contents, count)

    def hashed_body(self, contents: Sequence[Sequence[bytes]]) -> bytes:
        """Return the body by which a row with images is hashed: without cache marks."""
        return RequestBodies(self._hashed, contents, 1)[0]


class LineWriter:
    """Write bodies as lines of a batch file.

    Parameters
    ----------
    url : str
        What the requests call.
    """

    def __init__(self, url: str) -> None:
        self._mid = b'","method":"POST","url":' + encode(url) + b',"body":'

    def lines(self, custom_ids: Iterable[bytes], bodies: RequestBodies) -> Iterator[bytes]:
        """Yield one line a request, with its line end."""
        # `head`, `mid` and `tail` never end, so zip cannot be strict.
        head, mid, tail = map(itertools.repeat, (_HEAD, self._mid, _TAIL))
        return map(b"".join, zip(head, custom_ids, mid, bodies, tail, strict=False))

    def together(self, custom_ids: Sequence[bytes], bodies: RequestBodies) -> bytes:
        """Join all lines at once: each row's own parts between the pieces that all rows share."""
        first, *pieces = bodies.pieces
        same = [self._mid + first, *pieces]
        # One piece for a line's end and the next line's start: fewer parts to join.
        same[-1] += _TAIL + _HEAD
        step = 2 * len(same)
        parts = [_HEAD] * (1 + step * len(bodies))
        for i, (column, piece) in enumerate(zip([custom_ids, *bodies.contents], same, strict=True)):
            parts[2 * i + 1 :: step] = column
            parts[2 * i + 2 :: step] = [piece] * len(bodies)
        parts[-1] = parts[-1].removesuffix(_HEAD)
        return b"".join(parts)


_HEAD, _TAIL = b'{"custom_id":"', b"}\n"


def _folded(pieces: Sequence[bytes], constants: Mapping[int, bytes]) -> list[bytes]:
    """Merge the constant messages into the pieces around them, so that fewer are joined a row."""
    folded = [pieces[0]]
    for i, piece in enumerate(pieces[1:]):
        if i in constants:
            folded[-1] += constants[i] + piece
        else:
            folded.append(piece)
    return folded


def _same_texts(
    texts: Iterable[bytes], slots: Sequence[bytes], constants: Mapping[int, bytes]
) -> list[bytes]:
    """Join the texts of a body between those that vary."""
    # `texts` can have more than the messages: a parameter may hold a text, too.
    same, numbers = [b""], {slot: i for i, slot in enumerate(slots)}
    for text in texts:
        own = numbers.get(text)
        if own is None or own in constants:
            same[-1] += text if own is None else constants[own]
        else:
            same.append(b"")
    return same


def input_hash(texts: Iterable[str]) -> bytes:
    """Hash what a row rendered to, and the digests of its images; 32 bytes.

    Examples
    --------
    >>> input_hash(("ab", "c")) == input_hash(("a", "bc"))
    False
    """
    return texts_hash(map(encode, texts))


def request_body(
    spec: JobSpec, texts: Sequence[str], image_urls: Sequence[str] = ()
) -> dict[str, Json]:
    """Build the body of a request whose messages have these contents."""
    messages: list[dict[str, Json]] = [
        {"role": m.role, "content": text} for m, text in zip(spec.messages, texts, strict=True)
    ]
    if image_urls:
        slot = image_slot(spec)
        messages[slot]["content"] = _with_images(spec, texts[slot], image_urls)
    return {"model": spec.model, **_content(spec, messages), **answer_format(spec), **spec.params}


def _content(spec: JobSpec, messages: list[dict[str, Json]]) -> dict[str, Json]:
    if spec.endpoint == "/v1/chat/completions":
        return {"messages": messages}
    if spec.endpoint == "/v1/responses":
        return {"input": messages}
    name = "prompt" if spec.endpoint == "/v1/completions" else "input"
    # `options._check_messages` allows one message only. One input a request, though the API takes
    # several: they would share one custom_id, and reuse, later rounds and the status hang on it.
    return {name: messages[0]["content"]}


def image_slot(spec: JobSpec) -> int:
    """Return the message that carries the images: the last of the user's, counted from the end."""
    roles = [message.role for message in reversed(spec.messages)]
    return -1 - roles.index("user") if "user" in roles else -1


def _with_images(spec: JobSpec, text: str, image_urls: Sequence[str]) -> list[Json]:
    """Write a message's content as the endpoint's parts: the text, then the images."""
    detail = spec.image_detail
    if spec.endpoint == "/v1/responses":
        # Responses requires a detail with every image; chat completions have a default.
        images: list[Json] = [
            {"type": "input_image", "image_url": url, "detail": detail or "auto"}
            for url in image_urls
        ]
        return [{"type": "input_text", "text": text}, *images]
    images = [
        {"type": "image_url", "image_url": {"url": url, **({"detail": detail} if detail else {})}}
        for url in image_urls
    ]
    return [{"type": "text", "text": text}, *images]


def _unused_marks(spec: JobSpec) -> list[str]:
    """Make one placeholder a message that nothing else in the request contains."""
    text = encode(request_body(spec, [""] * len(spec.messages))).decode()
    # A parameter or a schema may hold any text: lengthen the stem until it is in none of them.
    stem = "text"
    while stem in text:
        stem += "-"
    return [f"<{stem}:{i}>" for i in range(len(spec.messages))]


def _split(body: bytes, marks: Sequence[bytes]) -> list[bytes]:
    pieces, rest = [], body
    for mark in marks:
        before, _, rest = rest.partition(mark)
        pieces.append(before)
    return [*pieces, rest]


def retry_line(
    line: bytes,
    custom_id: str,
    rework: Callable[[dict[str, Json]], dict[str, Json]],
    url: str | None = None,
    spec: JobSpec | None = None,
) -> tuple[bytes, bytes]:
    """Write a request line again under a new custom_id, with its body reworked.

    `url` replaces the line's own; `spec` says which cache marks are not hashed.

    Returns
    -------
    (bytes, bytes)
        The line, and its request hash.
    """
    request = json.loads(line)  # not orjson, which refuses a lone surrogate
    body = encode(rework(request["body"]))
    url = url or request["url"]
    hashed = body if spec is None else unmarked(spec, body)
    return request_line(custom_id, url, body), request_hash(url, hashed)
