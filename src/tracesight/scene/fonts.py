"""Fonts for labels: Pillow's own wherever it has the letters, else one that this computer has."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Found by Pillow in the system's font folders; together they cover the scripts that Pillow's own font lacks.
_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
)


def font_for(text: str, size: int) -> Font:
    """A font of `size` pixels with every letter of `text`, or Pillow's own where none has."""
    own = _own_font(size)
    letters = "".join(sorted({letter for letter in text if not letter.isspace()}))
    if text.isascii() or _has_letters(own, letters):
        return own
    for name in _fallbacks():
        font = _font(name, size)
        if font is not None and _has_letters(font, letters):
            return font
    return own


@lru_cache(maxsize=64)
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=1)
def _fallbacks() -> tuple[str, ...]:
    """Names of fonts to try: first the one that the installed matplotlib brings along (not imported for it)."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return _SYSTEM_FONTS
    return (str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), *_SYSTEM_FONTS)


@lru_cache(maxsize=1024)
def _has_letters(font: Font, letters: str) -> bool:
    missing = _drawn(font, "\U0010fffd")  # no font has a letter there: what is drawn stands for "missing"
    return all(_drawn(font, letter) != missing for letter in letters)


def _drawn(font: Font, letter: str) -> bytes:
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).text((8, 8), letter, 255, font)
    return image.tobytes()
