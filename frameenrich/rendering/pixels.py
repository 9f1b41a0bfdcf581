"""Read, convert and shrink pixels with Pillow, an extra that only these need."""

from __future__ import annotations

import io
from typing import Any

MEND_CELL = "Correct that cell, or pass on_bad_image='skip' to leave the row out; nothing was sent."


class UnusableError(Exception):
    """The reason why a cell is no usable image, and what to do about it."""

    def __init__(self, reason: str, fix: str = MEND_CELL) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


_JPEG_QUALITY = 90


def with_pillow(work: Any) -> Any:
    """Call a function with `PIL.Image`; its errors about broken images become `UnusableError`."""
    try:
        from PIL import Image as pillow  # noqa: N813, PLC0415 - an extra, and named as a module is
    except ImportError:
        raise UnusableError(
            "it has to be made smaller, which takes Pillow",
            "Run: pip install 'frameenrich[images]', or leave out image_max_pixels=.",
        ) from None
    try:
        return work(pillow)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise UnusableError(f"Pillow cannot read it ({type(error).__name__})") from None


def png_of(image: Any) -> bytes:
    """Return a PIL image as PNG."""

    def save(_: Any) -> bytes:
        # The modes that PNG can hold; CMYK, for instance, has to become RGB.
        kept = image if image.mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"} else None
        sink = io.BytesIO()
        (kept or image.convert("RGB")).save(sink, "PNG")
        return sink.getvalue()

    content: bytes = with_pillow(save)
    return content


_MOST_PIXELS = 200_000_000


def downscaled(content: bytes, max_pixels: int) -> bytes:
    """Shrink an image to a longest side of `max_pixels`; a smaller one is returned unchanged."""

    def shrink(pillow: Any) -> bytes:
        from PIL import ImageOps  # noqa: PLC0415 - an extra

        image = pillow.open(io.BytesIO(content))
        if max(image.size) <= max_pixels:
            return content
        if image.width * image.height > _MOST_PIXELS:  # known before anything is decoded
            raise UnusableError(
                f"it has {image.width} x {image.height} pixels, which no memory is risked for",
                "Make it smaller.",
            )
        form = image.format if image.format in {"JPEG", "WEBP"} else "PNG"
        if image.mode in {"1", "P"}:
            image = image.convert("RGBA")  # a palette cannot be smoothed
        image.thumbnail((max_pixels, max_pixels))
        sink = io.BytesIO()
        options = {} if form == "PNG" else {"quality": _JPEG_QUALITY}
        # Saving drops EXIF, and with it how to turn a phone's picture upright: turn the pixels.
        ImageOps.exif_transpose(image).save(sink, form, **options)
        return sink.getvalue()

    smaller: bytes = with_pillow(shrink)
    return smaller
