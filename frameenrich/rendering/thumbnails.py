"""Make thumbnails of image cells for the report."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from typing import Any

from frameenrich.rendering.images import DATA_URL, data_url, media_type
from frameenrich.rendering.pixels import UnusableError, with_pillow

_THUMBNAIL_QUALITY = 78


_SMALL_BYTES = 6_000


MOST_PIXELS = 50_000_000
"""As much as a large camera takes; 140 kB of PNG can unpack to a gigabyte of pixels."""


def thumbnail(url: str, *, max_pixels: int = 320, max_bytes: int = 60_000) -> str | None:
    """Shrink the image of a ``data:`` URL; None for other URLs, and where it stays too large.

    Parameters
    ----------
    url : str
        As a request carries it.
    max_pixels : int
        The longest side.
    max_bytes : int
        How large the result may be; without Pillow an image that is smaller is used as it is.
    """
    found = DATA_URL.fullmatch(url)
    try:
        content = base64.b64decode(found[1]) if found else b""
        if media_type(content) is None:
            return None
        if len(content) > _SMALL_BYTES:
            content = _thumbnail(content, max_pixels)
    except (UnusableError, binascii.Error):
        pass  # no Pillow, or it cannot read it: the original may still be small enough
    return data_url(content) if media_type(content) and len(content) <= max_bytes else None


def _thumbnail(content: bytes, max_pixels: int) -> bytes:
    """Return a small JPEG of the image; transparent parts become white, as JPEG has none."""

    def shrink(pillow: Any) -> bytes:
        from PIL import ImageOps  # noqa: PLC0415 - an extra

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # see below
            image = pillow.open(io.BytesIO(content))
        if image.width * image.height > MOST_PIXELS:  # known before anything is decoded
            raise UnusableError("it has too many pixels for a thumbnail", "Show it elsewhere.")
        # JPEG decodes at an eighth, a quarter or half of its size: less memory and time.
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
