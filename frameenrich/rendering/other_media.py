"""Recognise PDFs, sound, video and Office files, which no request carries, and say what to do."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

FIXES = {
    "a PDF": "Put its text into a column, or each page as a PNG: `pdftotext` and `pdftoppm -png` "
    "do that; nothing was sent.",
    "a sound file": "Transcribe it first, and put the text into a column; nothing was sent.",
    "a video": "Put some of its frames into columns, as PNG or JPEG; nothing was sent.",
    "an Office document": "Put its text into a column, or its pages as PNG; nothing was sent.",
}
"""The fix that errors suggest for each kind of cell that is no image."""


_BY_START = (
    (b"%PDF-", "a PDF"),
    (b"ID3", "a sound file"),
    (b"fLaC", "a sound file"),
    (b"OggS", "a sound file"),
    (b"\xff\xfb", "a sound file"),
    (b"\xff\xf3", "a sound file"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\x03\x04", "an Office document"),
)
"""The first bytes of files; a ZIP archive is what Office writes."""


_BY_BRAND = {b"WAVE": "a sound file", b"AVI ": "a video"}


_BY_ENDING = {
    ".pdf": "a PDF",
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".flac", ".aac"), "a sound file"),
    **dict.fromkeys((".mp4", ".mov", ".webm", ".avi", ".mkv"), "a video"),
    **dict.fromkeys((".docx", ".xlsx", ".pptx"), "an Office document"),
}


_IMAGE_BRANDS = re.compile(rb"heic|heix|mif1|avif")


def media_kind(content: bytes) -> str | None:
    """Return the kind of a file that is no image, by its first bytes; None where they do not say.

    Examples
    --------
    >>> media_kind(b"%PDF-1.7"), media_kind(b"RIFF....WAVEfmt "), media_kind(b"GIF89a")
    ('a PDF', 'a sound file', None)
    """
    # MP4, M4A, HEIC and AVIF share one container: the brand after "ftyp" tells them apart.
    if content[4:8] == b"ftyp" and not _IMAGE_BRANDS.match(content[8:12]):
        return "a sound file" if content[8:12] == b"M4A " else "a video"
    if content.startswith(b"RIFF"):
        # RIFF holds WAV and AVI, and WebP, which is an image and so not listed.
        return _BY_BRAND.get(content[8:12])
    return next((kind for start, kind in _BY_START if content.startswith(start)), None)


def kind_of_url(url: str) -> str | None:
    """Return the kind that a URL's file name says; None where it may be an image.

    Examples
    --------
    >>> kind_of_url("https://example.org/manual.PDF?page=2"), kind_of_url("https://example.org/a")
    ('a PDF', None)
    """
    return _BY_ENDING.get(PurePosixPath(urlsplit(url).path).suffix.lower())
