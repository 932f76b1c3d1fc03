"""Changes to bytes that find mistakes in readers: flips, cuts, splices, odd values."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

_LONGEST = 2**16
"""Bytes of a changed input, or twice its valid ones where those are longer."""
_ODD = (
    b"", b"-1", b"0", b"1", b"nan", b"inf", b"-inf", b"1e309", b"-0.5", b"9" * 25, b"9" * 400,
    b"9" * 5_000, b"true", b"null", b"[]", b"{}", b'""', b"\0", b"\t", b",", b"\n", b"\r", b"#",
    b'"', b"'", b"%", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\x1b[31m",
    b"../../x", b"/", b"A" * 3_000, b"{" * 2_000, b"[" * 2_000, b"&a [*a]", b"!!python/name:os",
)  # fmt: skip
_WORD = re.compile(rb"[-+.\w]+")
_NUMBERS = (
    0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1,
)  # fmt: skip

Change = Callable[[bytearray, Sequence[bytes], random.Random], None]


def mutated(valid: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Change valid bytes a few times.

    Parameters
    ----------
    valid
        What a reader can read.
    others
        Other inputs of which parts may be taken.
    chance
        Decides everything.
    """
    data = bytearray(valid)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 3, 6))):
        chance.choice(_CHANGES)(data, others, chance)
    return bytes(data[: max(_LONGEST, 2 * len(valid))])


def _place(data: bytearray, chance: random.Random) -> int:
    """Choose a place; of those at the beginning, where headers are, more often."""
    most = len(data)
    if most > 64 and chance.random() < 0.3:
        most = 64
    return chance.randrange(most + 1)


def _block(data: bytearray, chance: random.Random) -> slice:
    start = _place(data, chance)
    return slice(start, start + chance.choice((1, 2, 4, 8, 64, 512, chance.randrange(1, 5_000))))


def _flip(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 4, 32)) if data else 0):
        data[min(_place(data, chance), len(data) - 1)] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    block = _block(data, chance)
    value = chance.choice((b"\0", b"\xff", bytes([chance.randrange(256)])))
    data[block] = value * len(data[block])


def _number(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    number, code = chance.choice(_NUMBERS), chance.choice("bhiq")
    packed = struct.pack("<q", number)[: struct.calcsize(code)]
    start = _place(data, chance)
    data[start : start + len(packed)] = packed if chance.random() < 0.5 else packed[::-1]


def _delete(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    del data[_block(data, chance)]


def _cut(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _repeat(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    block = _block(data, chance)
    data[block] = data[block] * chance.choice((2, 2, 3, 40))


def _move(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    taken = data[_block(data, chance)]
    start = _place(data, chance)
    data[start : start + len(taken) * chance.randrange(2)] = taken


def _splice(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    other = bytearray(chance.choice(others))
    data[_place(data, chance) :] = other[_place(other, chance) :]


def _insert(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    start = _place(data, chance)
    data[start:start] = chance.choice(_ODD)


def _word(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    """Put an odd value, or another word of the input, in the place of a word or number."""
    words = list(_WORD.finditer(data[:_LONGEST]))
    if not words:
        return
    found = chance.choice(words)
    new = chance.choice(_ODD) if chance.random() < 0.6 else chance.choice(words).group()
    data[found.start() : found.end()] = new


_CHANGES: tuple[Change, ...] = (
    _flip, _flip, _overwrite, _number, _delete, _cut, _repeat, _move, _splice, _insert, _word,
    _word,
)  # fmt: skip
