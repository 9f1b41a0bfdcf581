"""Text helpers: lone surrogates, control characters, secrets, and sizes and ages for people."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, AnyStr
from urllib.parse import quote, quote_plus

NO_MATH = "tex2jax_ignore mathjax_ignore"
"""Classes for our HTML: JupyterLab typesets what stands between two dollars, prices too."""


_MOST_NAMES = 12


def can(convert: Callable[[Any], Any], value: Any) -> bool:
    """Tell whether a conversion takes a value."""
    try:
        convert(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def encodable(value: Any) -> Any:
    r"""Put U+FFFD for lone surrogates in a parser's value: no column or file can hold them.

    A value without any is returned itself, not copied.

    Examples
    --------
    >>> encodable({"cut": ["\ud83d"]}) == {"cut": ["\ufffd"]}
    True
    """
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list | tuple):
        items = [encodable(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if isinstance(value, dict):
        pairs = [(encodable(k), encodable(v)) for k, v in value.items()]
        old = value.items()
        same = all(k is k_ and v is v_ for (k, v), (k_, v_) in zip(pairs, old, strict=True))
        return value if same else dict(pairs)
    return value


def is_encodable(text: str) -> bool:
    """Tell whether a text can be written as UTF-8: it has no half of a surrogate pair."""
    # Python keeps with each text whether it is ASCII, so most need no encoding.
    return text.isascii() or can(str.encode, text)


def without_surrogates(text: str) -> str:
    r"""Put pairs of surrogates together, and U+FFFD for each half without its other half.

    Every text that goes into a column or a file goes through here, so that an answer that was cut
    in a character reads the same wherever it is written.

    Examples
    --------
    >>> without_surrogates("a\ud83d"), without_surrogates("\ud83d\ude00")
    ('a\ufffd', '😀')
    """
    if is_encodable(text):
        return text
    # In UTF-16 the two halves of a pair are one character, so decoding joins them.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, length: int = 60) -> str:
    """Cut a text to a length that fits into a message."""
    return text if len(text) <= length else text[: length - 3] + "..."


def columns_text(columns: Iterable[Any]) -> str:
    """Say which columns a frame has, as many as a message can hold.

    Examples
    --------
    >>> columns_text(["title", 2020]), columns_text([])
    ("The columns are 'title', 2020.", 'The frame has no columns.')
    """
    names = [repr(column) for column in columns]
    more = ", ..." if len(names) > _MOST_NAMES else ""
    some = ", ".join(names[:_MOST_NAMES])
    return f"The columns are {some}{more}." if names else "The frame has no columns."


def seconds_text(seconds: float) -> str:
    """Write a length of time in seconds.

    Examples
    --------
    >>> seconds_text(1.0), seconds_text(0.5)
    ('1 second', '0.5 seconds')
    """
    return f"{seconds:g} second{'' if seconds == 1 else 's'}"


def kind_of(value: Any) -> str:
    """Name a value in a message: itself where it is short to write, else its type.

    Examples
    --------
    >>> kind_of(None), kind_of("yes"), kind_of([1, 2]), kind_of({})
    ('None', "'yes'", 'a list', 'a dict')
    """
    if value is None or isinstance(value, str | bytes | int | float):
        return shortened(repr(value))
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


_SHORTEST_SECRET = 8
"""What is shorter ("EMPTY", "ollama") keeps nobody out, and would spoil other words."""


# Servers quote the key that they refuse, often with stars in its middle.
_KEY_SHAPE = re.compile(r"\b(sk|sess|key|gsk|tgp)[-_][A-Za-z0-9_*-]{6,}|(?i:bearer)\s+\S+")


# Who asks, in a URL: user and password, or a token alone.
_IN_URL = re.compile(r"(?<=:)//[^/\s@'\"]+@")


def scrub(text: str, secrets: Iterable[str | None] = ()) -> str:
    """Remove API keys and control characters from a text, and write it on one line.

    Examples
    --------
    >>> scrub("Incorrect API key provided: sk-abcdef123")
    'Incorrect API key provided: ***'
    """
    # The caller's own keys first: they may have any shape. Then what only looks like a key.
    text = _KEY_SHAPE.sub("***", one_line(without_secrets(text, secrets)))
    return _IN_URL.sub("//***@", text)


def secret_forms(secret: str) -> set[str]:
    r"""Return a key in each form in which a server, a page or Python may write it.

    Examples
    --------
    >>> sorted(secret_forms("a/b"))
    ['a%2Fb', 'a%2fb', 'a/b', 'a\\/b']
    """
    in_url, in_json = quote(secret, safe=""), json.dumps(secret)[1:-1]
    return {
        *(secret, in_url, quote_plus(secret), in_json, in_json.replace("/", r"\/")),
        re.sub("%..", lambda found: found.group().lower(), in_url),
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        html.escape(secret).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        re.sub("[<>&']", lambda found: rf"\u{ord(found.group()):04x}", in_json),  # in a script
        repr(secret)[1:-1],
    }


def without_secrets(text: AnyStr, secrets: Iterable[str | None]) -> AnyStr:
    """Write ``***`` for each of some keys, in a text or in bytes.

    A key of letters alone, such as ``anything`` or ``password``, is hidden as a word of its own.

    Examples
    --------
    >>> without_secrets(b'{"error": "no such key: open-sesame"}', ["open-sesame", "EMPTY"])
    b'{"error": "no such key: ***"}'
    """
    for secret in secrets:
        if secret and len(secret) >= _SHORTEST_SECRET:
            if isinstance(text, str):
                text = _without(text, secret, "***", _WORD)
            else:
                own = secret.encode("utf-8", "surrogatepass")
                text = _without(text, own, b"***", _WORD.encode())
    return text


_WORD = "(?<![A-Za-z])%s(?![A-Za-z])"


def _without(text: AnyStr, secret: AnyStr, stars: AnyStr, word: AnyStr) -> AnyStr:
    # Within a longer word it is a part of that word: "completed" tells nobody "complete".
    if secret.isascii() and secret.isalpha():
        return re.sub(word % secret, stars, text)
    return text.replace(secret, stars)


# Terminal escapes and the characters that turn text around; newlines and tabs are fine.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Write control characters as their escapes, where servers and models speak to a person.

    None may move a terminal's cursor or turn its text around; line ends and tabs are fine.

    Examples
    --------
    >>> escaped("red\x1b[31m")
    'red\\x1b[31m'
    """
    if not _CONTROL.search(text):
        return text
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""Write a text on one line, as `escaped` does, for a log, a table or an error.

    Examples
    --------
    >>> one_line("no\tsuch key\r\n\x1b[31m")
    'no such key \\x1b[31m'
    """
    # A carriage return is a line's end; `split` would take U+001F for a blank, so it comes after.
    return " ".join(escaped(without_surrogates(text).replace("\r", " ")).split())


_SIZES = ("B", "kB", "MB", "GB", "TB")


def size_text(size_bytes: float) -> str:
    """Write a size in bytes with three digits at most.

    Examples
    --------
    >>> [size_text(n) for n in (0, 999, 1_500, 2_340_000, 71_000_000_000)]
    ['0 B', '999 B', '1.5 kB', '2.3 MB', '71 GB']
    """
    # From 999.5 on, a size would be written with four digits: it goes to the next unit.
    step = next(
        (i for i in range(len(_SIZES) - 1) if size_bytes < 999.5 * 1000**i), len(_SIZES) - 1
    )
    size = size_bytes / 1000**step
    digits = 1 if step and size < 9.95 else 0  # noqa: PLR2004 - 9.95 would be written as 10.0
    return f"{size:.{digits}f} {_SIZES[step]}"


def age_text(seconds: float) -> str:
    """Write how long ago something was, in its largest unit.

    Examples
    --------
    >>> [age_text(s) for s in (12, 90, 7_300, 200_000)]
    ['12 s', '1 min', '2 h', '2 d']
    """
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def script_json(value: Any) -> str:
    r"""Write JSON for a ``<script>``: nothing in it can end the element or open another.

    Examples
    --------
    >>> script_json("</script><!-- \u2028")
    '"\\u003c/script\\u003e\\u003c!-- \\u2028"'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# HTML reads `</script` and `<!--` inside a script; lone surrogates have no UTF-8.
# JavaScript before 2019 ends a line of a string at U+2028 and U+2029, which JSON allows there.
_UNSAFE = re.compile("[<>\u2028\u2029\ud800-\udfff]")


# Those of OWASP's list, and the forms of other widths, which some spreadsheets fold.
_FORMULA_STARTS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b")


# Blanks that Unicode counts among letters and signs.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")


def _is_formula(text: str) -> bool:
    """Tell whether a spreadsheet would run a text, after whatever it passes over before it."""
    for char in text:
        # Most texts begin with a letter or a digit, and are done here.
        if char.isalnum() and char not in _FILLERS:
            return False
        if char in _FORMULA_STARTS:
            return True
        kind = unicodedata.category(char)
        # A tab, a line end or another control character begins a formula itself, or is dropped.
        if kind == "Cc":
            return True
        if kind[0] != "Z" and kind != "Cf" and char not in _FILLERS:
            return False
    return False


def quoted_formula(text: str) -> str:
    r"""Quote a text that a spreadsheet would run as a formula, with whatever it passes over.

    Examples
    --------
    >>> quoted_formula("=1+1"), quoted_formula("\u00a0@SUM(A1)"), quoted_formula("a=b")
    ("'=1+1", "'\xa0@SUM(A1)", 'a=b')
    """
    return f"'{text}" if _is_formula(text) else text
