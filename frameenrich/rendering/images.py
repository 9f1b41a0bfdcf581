"""Read cells as images that a request may carry; no other module reads image files.

A cell is a URL (passed on, never fetched), a ``data:`` URL, a path under ``image_root``, bytes or a
PIL image, or a list of these. A file is opened only where it lies under the root after all symbolic
links, and is used only where its first bytes are those of an image: a frame from elsewhere cannot
read other files.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import pandas as pd
import xxhash

from frameenrich.errors import ImageError, NullValueError
from frameenrich.model import HASHES, JobSpec
from frameenrich.rendering.image_lists import images_in
from frameenrich.rendering.other_media import FIXES, kind_of_url, media_kind
from frameenrich.rendering.pixels import MEND_CELL, UnusableError, downscaled, png_of, with_pillow
from frameenrich.text import columns_text, shortened

T = TypeVar("T")


_SHOWN = 80
"""Characters of a cell's text that a message quotes."""


_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")


DATA_URL = re.compile(
    r"data:(?:(?:image|audio|video|application)/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,(.*)",
    re.IGNORECASE | re.DOTALL,
)


def media_type(content: bytes) -> str | None:
    """Return the media type that the first bytes say; None where they are no image's.

    Examples
    --------
    >>> media_type(b"GIF89a..."), media_type(b"root:x:0:0")
    ('image/gif', None)
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return None


_OTHER_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


def other_kind(content: bytes) -> str | None:
    """Return the kind of an image that no model takes; None where the bytes are none.

    Examples
    --------
    >>> other_kind(b"BM..."), other_kind(b"<svg xmlns="), other_kind(b"root:x:0:0")
    ('BMP', 'SVG', None)
    """
    # HEIC and AVIF are in the container of MP4; the brand after "ftyp" tells which.
    if content[4:8] == b"ftyp":
        return _OTHER_BRANDS.get(content[8:12])
    if content.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if content.startswith(b"BM"):
        return "BMP"
    return "SVG" if b"<svg" in content[:1000].lower() else None


def data_url(content: bytes) -> str:
    """Return an image's bytes as a ``data:`` URL.

    Examples
    --------
    >>> data_url(b"GIF89a")
    'data:image/gif;base64,R0lGODlh'
    """
    return f"data:{media_type(content)};base64,{base64.b64encode(content).decode()}"


@dataclass(frozen=True, slots=True)
class RowImages:
    """A row's images: URLs for the model, and digests for the row's hash.

    ``digests`` has one for each column, ``""`` for a null; each is of the cell's URL, bytes or
    pixels as they are, before any downscaling. ``sized`` counts the images that were made smaller
    without being asked to.
    """

    urls: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    sized: int = 0


@dataclass(frozen=True)
class ImageCells:
    """The image columns of a frame.

    Parameters
    ----------
    frame : DataFrame
        Its rows are taken by position, one at a time.
    spec : JobSpec
        Which columns, and the ``image_...`` options.

    Raises
    ------
    ImageError
        The frame lacks a column, or has it twice.
    """

    frame: pd.DataFrame
    spec: JobSpec
    _columns: dict[str, pd.Series] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Pick the columns once, so that a missing one is an error before any row is rendered.
        columns = {name: _column(self.frame, name) for name in self.spec.image}
        object.__setattr__(self, "_columns", columns)

    def images(self, position: int) -> RowImages | None:
        """Read a row's images, in the columns' order; None where the null policy skips the row.

        Raises
        ------
        ImageError
            A cell cannot be used; the message names row and column.
        NullValueError
            A cell is null and ``on_null="raise"``.
        """
        cells = self._cells(position)
        if cells is None:
            return None
        found = [self._read(position, name, cell, _image) for name, cell in cells.items()]
        urls = tuple(image.url for images in found for image in images)
        digests = tuple(_joined(image.digest for image in images) for images in found)
        return RowImages(urls, digests, sum(image.sized for images in found for image in images))

    def digests(self, position: int) -> tuple[str, ...] | None:
        """Read a row's digests as `images` does, but without encoding or downscaling anything."""
        cells = self._cells(position)
        if cells is None:
            return None

        def digest(cell: Any, spec: JobSpec) -> str:
            return _digest_of(*_source(cell, spec), spec)

        found = (self._read(position, name, cell, digest) for name, cell in cells.items())
        return tuple(map(_joined, found))

    def problem(self, position: int) -> str | None:
        """Return why a row's images cannot be read; None where they can."""
        try:
            self.digests(position)
        except (ImageError, NullValueError) as error:
            return error.problem
        return None

    def _cells(self, position: int) -> dict[str, list[Any]] | None:
        """Return what each of a row's cells holds; None where the null policy skips the row."""
        cells = {name: images_in(column.iloc[position]) for name, column in self._columns.items()}
        empty = [name for name, cell in cells.items() if not cell]
        if empty and self.spec.on_null == "raise":
            raise NullValueError(
                f"The row at position {position} has no image: column {empty[0]!r} is empty there.",
                "Fill it, or pass on_null='empty' (no image) or 'skip' (no request).",
                position=position,
                columns=empty,
            )
        return None if empty and self.spec.on_null == "skip" else cells

    def _read(
        self, position: int, name: str, cell: list[Any], read: Callable[[Any, JobSpec], T]
    ) -> list[T]:
        found: list[T] = []
        try:
            for image in cell:
                found.append(read(image, self.spec))  # noqa: PERF401 - the count says which failed
        except UnusableError as error:
            which = f"image {len(found) + 1} of {len(cell)}: " if len(cell) > 1 else ""
            raise ImageError(
                f"The row at position {position} has an image in column {name!r} that cannot be "
                f"used: {which}{error.reason}.",
                error.fix,
                position=position,
                columns=[name],
                reason=f"the image in column {name!r} cannot be used: {which}{error.reason}",
            ) from None
        return found


def image_cells(frame: pd.DataFrame, spec: JobSpec) -> ImageCells | None:
    """Return the image columns of a job's frame; None where the job has no images."""
    return ImageCells(frame, spec) if spec.image else None


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        close = difflib.get_close_matches(name, [str(column) for column in frame.columns], n=1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise ImageError(
            f"image= names {name!r}, which is not a column of the frame.",
            f"{meant}{columns_text(frame.columns)}",
            columns=[name],
        )
    column: Any = frame[name]
    if isinstance(column, pd.DataFrame):
        raise ImageError(
            f"The frame has more than one column called {name!r}, which image= names.",
            "Rename one of them.",
            columns=[name],
        )
    found: pd.Series = column
    return found


def _joined(digests: Iterable[str]) -> str:
    """Return one digest of a cell's images; that of a list of one is the image's own."""
    return " ".join(digests)  # empty for a null, which keeps the columns' digests in their order


# --- one cell -----------------------------------------------------------------------------------


class _Image(NamedTuple):
    """An image of a request; ``sized`` is whether it was made smaller without being asked to."""

    url: str
    digest: str
    sized: bool = False


def _image(cell: Any, spec: JobSpec) -> _Image:
    """Return an image's URL and its digest."""
    kind, source = _source(cell, spec)
    # Of the cell as it is, before downscaling: another Pillow must not make every row look changed.
    digest = _digest_of(kind, source, spec)
    if kind == "url":
        return _Image(source, digest)
    content = png_of(source) if kind == "pixels" else source
    whole = content
    if spec.image_max_pixels is not None:
        content = downscaled(content, spec.image_max_pixels)
    elif spec.image_side is not None:
        # Nobody asked for it, so what Pillow cannot read (or no Pillow at all) is no error.
        with contextlib.suppress(UnusableError):
            content = downscaled(content, spec.image_side)
    _check_size(len(content), spec.image_max_bytes)
    return _Image(data_url(content), digest, spec.image_max_pixels is None and content is not whole)


def _digest_of(kind: str, source: Any, spec: JobSpec) -> str:
    """Return a digest that stays the same, however a later session reads the frame."""
    if kind == "url":
        source = source.encode()
    elif kind == "pixels":
        # Pixels have no bytes of their own; with the size, 2 x 3 and 3 x 2 of one colour differ.
        source = b"%dx%d:" % source.size + with_pillow(lambda _: source.convert("RGBA").tobytes())
    digest: Any = sha256 if spec.version == HASHES else xxhash.xxh3_128
    return f"{kind}:{digest(source).hexdigest()}"


def _source(cell: Any, spec: JobSpec) -> tuple[str, Any]:
    """Read a cell: ``url`` and text, ``content`` and bytes, ``pixels`` and a PIL image."""
    if isinstance(cell, os.PathLike):
        return _checked(_read_file(os.fspath(cell), spec), spec, str(cell))
    if isinstance(cell, str):
        return _text_source(cell.strip(), spec)
    if isinstance(cell, bytes | bytearray | memoryview):
        _check_size(len(cell), spec.image_max_bytes)
        return _checked(bytes(cell), spec, "what it holds")
    pillow = sys.modules.get("PIL.Image")  # who has such an image has imported it
    if pillow is not None and isinstance(cell, pillow.Image):
        return "pixels", cell
    if isinstance(cell, Mapping) and set(cell) == {"bytes", "path"}:  # as Hugging Face writes them
        return _source(cell["path"] if cell["bytes"] is None else cell["bytes"], spec)
    raise UnusableError(
        f"it holds a {type(cell).__name__}",
        "Give a URL, a path, bytes, a PIL image, or a list of these.",
    )


def _text_source(text: str, spec: JobSpec) -> tuple[str, Any]:
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme in {"http", "https"}:
        return "url", _checked_url(text)
    if scheme == "data":
        return _checked(_decoded(text, spec), spec, "its data URL")
    if scheme and text[len(scheme) + 1 :].startswith("//"):
        raise UnusableError(
            f"it is a {scheme}: URL", "Give an https: URL, or a local path under image_root."
        )
    # Bare base64 looks like a relative path: only a known start and some length make it an image.
    if len(text) >= _BASE64_LENGTH and _BASE64_IMAGE.match(text):
        return _checked(_decoded(f"data:;base64,{text}", spec), spec, "its base64")
    return _checked(_read_file(text, spec), spec, repr(shortened(text, _SHOWN)))


_BASE64_IMAGE = re.compile(r"iVBORw0KGgo|/9j/|R0lGOD|UklGR|JVBERi")
"""The starts of the base64 of PNG, JPEG, GIF, WebP, and of PDF for a better error."""


_BASE64_LENGTH = 60
"""Shorter texts are taken as names of files."""


def _checked_url(text: str) -> str:
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host or not text.isprintable() or " " in text:
        raise UnusableError(f"{shortened(text, _SHOWN)!r} is no whole URL")
    _refuse_media(kind_of_url(text), repr(shortened(text, _SHOWN)))
    return text


def _decoded(text: str, spec: JobSpec) -> bytes:
    found = DATA_URL.fullmatch(text)
    if found is None:
        raise UnusableError("its data URL is not data:image/...;base64,...")
    # Before decoding, so that an oversized cell takes no memory.
    _check_size(len(found[1]) * 3 // 4 - 2, spec.image_max_bytes)
    try:
        return base64.b64decode(found[1], validate=True)
    except (binascii.Error, ValueError):
        raise UnusableError("its data URL does not hold base64") from None


def _checked(content: bytes, spec: JobSpec, what: str) -> tuple[str, Any]:
    """Take an image's bytes for a model: ``content`` as it is, or ``pixels`` to be encoded."""
    _check_size(len(content), spec.image_max_bytes)
    if media_type(content) is not None:
        return "content", content
    kind = other_kind(content)
    if kind in _CONVERTED:
        # The digest is of the pixels: the PNG made of them may differ with another Pillow.
        return "pixels", _opened(content, kind)
    if kind is not None:
        raise UnusableError(
            f"{what} is {'an' if kind == 'SVG' else 'a'} {kind} image, which models do not take",
            "Convert it to PNG or JPEG; nothing was sent.",
        )
    _refuse_media(media_kind(content), what)
    raise UnusableError(f"{what} is no PNG, JPEG, WebP or GIF image")


def _refuse_media(kind: str | None, what: str) -> None:
    if kind is not None:
        raise UnusableError(f"{what} is {kind}, and only images go into a request", FIXES[kind])


_CONVERTED = frozenset({"BMP", "TIFF", "AVIF"})
"""Kinds that Pillow reads and no model takes; they are sent as PNG."""


def _opened(content: bytes, kind: str) -> Any:
    def open_upright(pillow: Any) -> Any:
        from PIL import ImageOps  # noqa: PLC0415 - an extra

        return ImageOps.exif_transpose(pillow.open(io.BytesIO(content), formats=[kind]))

    try:
        return with_pillow(open_upright)
    except UnusableError as error:
        raise UnusableError(
            f"it is a {kind} image, which has to be converted for models ({error.reason})",
            "Convert it to PNG or JPEG, or run: pip install 'frameenrich[images]'.",
        ) from None


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnusableError(
            f"it has more than {max_bytes:,} bytes",
            "Make it smaller, or pass image_max_bytes= (providers refuse very large ones).",
        )


# --- files --------------------------------------------------------------------------------------


def _read_file(name: str, spec: JobSpec) -> bytes:
    """Read the bytes of a file under the root; at most one more than the limit."""
    shown = repr(shortened(str(name), _SHOWN))
    try:
        root = Path(spec.image_root).resolve()
        path = (root / name).resolve()
        if root not in path.parents:
            raise UnusableError(
                f"{shown} lies outside of image_root={spec.image_root!r}",
                "Pass image_root= with the folder that holds the images.",
            )
        if not path.is_file():  # a pipe or a device would wait for ever
            what = "is not a file" if path.exists() else "is not there"
            raise UnusableError(
                f"{shown} {what} under image_root={spec.image_root!r}",
                f"Check the path. {MEND_CELL}",
            )
        with path.open("rb") as file:
            return file.read(spec.image_max_bytes + 1)  # one more tells that it is too large
    except (OSError, ValueError, RuntimeError) as error:  # a name with NUL, a loop of links
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnusableError(f"{shown} cannot be read ({reason or 'no usable path'})") from None
