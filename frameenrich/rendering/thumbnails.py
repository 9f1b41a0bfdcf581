"""Make small pictures of image cells for the report."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

from frameenrich.rendering.images import DATA_URL, UnusableError, data_url, media_type, with_pillow

_THUMBNAIL_QUALITY = 78


_SMALL_BYTES = 6_000


MOST_PIXELS = 50_000_000
"""A picture of a large camera; 140 kB of PNG can be a gigabyte of pixels."""


def thumbnail(url: str, *, max_pixels: int = 320, max_bytes: int = 60_000) -> str | None:
    """A ``data:`` URL's image, made small; None for another URL, and where it cannot be small.

    Parameters
    ----------
    url : str
        As a request carries it.
    max_pixels : int
        The longest side.
    max_bytes : int
        How large the image may be; without Pillow, those that are smaller as they are.
    """
    found = DATA_URL.fullmatch(url)
    try:
        content = base64.b64decode(found[1]) if found else b""
        if media_type(content) is None:
            return None
        if len(content) > _SMALL_BYTES:
            content = _thumbnail(content, max_pixels)
    except (UnusableError, binascii.Error):
        pass
    return data_url(content) if media_type(content) and len(content) <= max_bytes else None


def _thumbnail(content: bytes, max_pixels: int) -> bytes:
    """Return a small JPEG of the image, on white where one can see through it."""

    def shrink(pillow: Any) -> bytes:
        from PIL import ImageOps  # noqa: PLC0415 - an extra

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # told below
            image = pillow.open(io.BytesIO(content))
        if image.width * image.height > MOST_PIXELS:  # known before anything is decoded
            raise UnusableError("it has too many pixels for a thumbnail", "Show it elsewhere.")
        image.draft("RGB", (max_pixels, max_pixels))
        image = ImageOps.exif_transpose(image).convert("RGBA")
        image.thumbnail((max_pixels, max_pixels))
        ground = pillow.new("RGBA", image.size, "white")
        sink = io.BytesIO()
        pillow.alpha_composite(ground, image).convert("RGB").save(
            sink, "JPEG", quality=_THUMBNAIL_QUALITY
        )
        return sink.getvalue()

    smaller: bytes = with_pillow(shrink)
    return smaller
