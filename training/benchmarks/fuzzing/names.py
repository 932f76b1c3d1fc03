"""Names by chance: real ones, real ones written oddly, and what no name is made of."""

from __future__ import annotations

import random
import unicodedata

_ODD = (
    "\0", "\n", "\r", "\t", "\x1b[31m", "\x7f", "\u00a0", "\u200b", "\u202e", "\u2028", "\ud800",
    "\udcff", "\ufeff", "é", "e\u0301", "ß", "ı", "İ", "α", "β", "Ω", "₃", "²", "４", "٣", "組織",
    "🧬", "(", ")", "[", "]", "{", "}", "/", "\\", "|", ",", ";", ":", "'", '"', "`", "$(x)", "%s",
    "{0}", "-", "_", ".", "..", "+", "*", "?", "#", "@", "=", " ", "  ", "0", "1", "999999999999",
    "nan", "None", "NaN", "-1", "1e5", "CD", "HLA-", "anti-", "TotalSeq", "ENSG", "GRCh38_",
    "2-Sep",
)  # fmt: skip
_SEPARATORS = ("", " ", "-", "_", ".", "/", ",", "(", "|", ";", "\t", "\n")


def any_text(chance: random.Random, most: int = 12) -> str:
    """Make text of any characters of Unicode, halves of pairs included."""
    kind = chance.randrange(4)
    length = chance.choice((0, 1, 2, chance.randrange(1, most + 1), most))
    if kind == 0:
        return "".join(chr(chance.randrange(0x110000)) for _ in range(length))
    if kind == 1:
        return "".join(chr(chance.randrange(128)) for _ in range(length))
    if kind == 2:
        return "".join(chance.choice(_ODD) for _ in range(length))
    return chance.choice(_ODD) * chance.choice((1, 2, 30, 3_000))


def odd_name(known: list[str], chance: random.Random) -> str:
    """Make a name of known ones and anything else."""
    kind = chance.randrange(8)
    name = chance.choice(known)
    if kind == 0:
        return any_text(chance)
    if kind == 1:
        return name
    if kind == 2:
        return chance.choice((str.lower, str.upper, str.title, str.swapcase))(name)
    if kind == 3:
        return name + chance.choice(_SEPARATORS) + chance.choice(known)
    if kind == 4:
        start = chance.randrange(len(name) + 1)
        return name[:start] + any_text(chance, 3) + name[start:]
    if kind == 5:
        start = chance.randrange(len(name))
        return name[:start] + name[start + 1 :]
    if kind == 6:
        form = chance.choice(("NFD", "NFKD", "NFKC"))
        return unicodedata.normalize(form, name + any_text(chance, 2))
    return chance.choice(_ODD) + name * chance.choice((1, 2, 400)) + chance.choice(_ODD)


def odd_names(known: list[str], chance: random.Random, most: int = 12) -> list[str]:
    """Make a list of names, some of them several times."""
    names = [odd_name(known, chance) for _ in range(chance.randrange(most + 1))]
    if names and chance.random() < 0.3:
        names += [chance.choice(names)] * chance.randrange(1, 4)
    return names
