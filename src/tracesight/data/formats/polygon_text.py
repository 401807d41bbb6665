"""Whether texts are JSON of sound polygons, told of thousands of them at once.

Parsing the numbers of a large label file would take longer than all the rest of its reading. What makes a text sound
is therefore told from its characters alone: which of them may follow which, and how many commas are in each bracket.
"""

from __future__ import annotations

import re

import numpy as np

# Kinds of characters. Those up to the minus come before a number.
_SPACE, _OPEN, _COMMA, _MINUS, _ZERO, _DIGIT, _POINT, _CLOSE, _END = range(9)
_KIND = bytes.maketrans(
    b" \t\r\n[,-0123456789.];",
    bytes([_SPACE] * 4 + [_OPEN, _COMMA, _MINUS, _ZERO] + [_DIGIT] * 9 + [_POINT, _CLOSE, _END]),
)
_BEGINS = (_SPACE, _OPEN, _MINUS, _ZERO, _DIGIT)
_GOES_ON = (_COMMA, _ZERO, _DIGIT, _POINT, _CLOSE)
_FOLLOWS = {
    _SPACE: _BEGINS, _OPEN: _BEGINS, _COMMA: _BEGINS, _MINUS: (_ZERO, _DIGIT), _ZERO: _GOES_ON, _DIGIT: _GOES_ON,
    _POINT: (_ZERO, _DIGIT), _CLOSE: (_COMMA, _CLOSE, _END), _END: (_OPEN,),
}  # fmt: skip
_PAIRS = bytes(16 * kind + other for kind, others in _FOLLOWS.items() for other in others)
_PART = rb"\[,(?:,,){2,}\]"  # x, y of three points or more, without the numbers
_PARTS = re.compile(rb"\[" + _PART + rb"(?:," + _PART + rb")*\]")


def polygons_only(joined: bytes) -> bool:
    """Whether each text is [[x, y, x, y, x, y, …], …]: one polygon or more, of three points or more, in numbers without
    exponents, with space only after commas and opening brackets. False says nothing: the texts may still be JSON.

    joined: texts of digits, the characters "-.,[]" and white space, with semicolons between them.
    """
    kinds = np.frombuffer(joined.translate(_KIND), np.uint8)
    if (16 * kinds[:-1] + kinds[1:]).tobytes().translate(None, _PAIRS):
        return False
    if ((kinds[:-2] <= _MINUS) & (kinds[1:-1] == _ZERO) & ((kinds[2:] == _ZERO) | (kinds[2:] == _DIGIT))).any():
        return False  # a number with a needless zero before it
    points = joined.translate(None, b"-0123456789 \t\r\n")
    if b".." in points:  # in one number
        return False
    return all(map(_PARTS.fullmatch, set(points.translate(None, b".").split(b";"))))
