"""What studies do to the names of antibodies, undone: spelling, barcodes, clones, controls."""

from __future__ import annotations

import re
import unicodedata

MAX_LENGTH = 120
"""Longest name that is looked at; the longest of published panels has about 60 characters."""

_GREEK = {
    "α": "a", "β": "b", "γ": "g", "δ": "d", "ε": "e", "κ": "k", "λ": "l", "ζ": "z", "µ": "m",
    "μ": "m",
}  # fmt: skip
_GREEK_WORDS = re.compile("alpha|beta|gamma|delta|epsilon|kappa|lambda")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[^0-9a-z]+(?=\d)")
_NOT_ALNUM = re.compile(r"[^0-9a-z.]+|(?<!\d)\.|\.(?!\d)")

_BARCODE = re.compile(r"[-_ .:][ACGT]{10,}$")
_SUFFIX = re.compile(
    r"(?:[\s._-]*total[\s_-]?seq[\s_-]*[abcd]?|[\s._-]+(?:total[\s_-]?[abcd]|ts[abc]|prot|adt|protein|ab"
    r"|antibody|recombinant))$",
    re.IGNORECASE,
)
_PREFIX = re.compile(
    r"^(?:(?:total[\s_-]?seq|total)[\s_-]*[abcd]?[\s_-]*(?:\d{4})?|[abcd]?\d{4}|ts[abc]|adt|prot|ab)[\s._-]+(?=\S)"
    r"|^anti[\s._-]+(?=\S)"
    r"|^(?:(?:human|mouse|rat)(?:\s*[/,&-]\s*|\s+|\.))+(?=\S)|^Hu(?:Ms)?(?:Rt)?[\s._]+(?=\S)",
    re.IGNORECASE,
)
_CLASS = r"ig(?P<cls>g(?:1|2a|2b|2c|3|4)?|m|a|e|d)"
_HOSTS = {
    "mouse": "mouse", "m": "mouse", "ms": "mouse", "mus": "mouse",
    "rat": "rat", "r": "rat",
    "hamster": "hamster", "armenianhamster": "hamster", "armham": "hamster", "ham": "hamster",
    "syrianhamster": "hamster", "goat": "goat", "rabbit": "rabbit", "human": "human",
}  # fmt: skip
_HOST = r"(?P<host{n}>" + "|".join(sorted(_HOSTS, key=len, reverse=True)) + ")"
_CONTROL_WORD = re.compile(r"isotype|isotyp|iso|controls?|ctrl|ctl")
_CONTROL = re.compile(
    rf"(?:{_HOST.format(n=1)})?{_CLASS}(?:{_HOST.format(n=2)})?[kl]?(?:{_HOST.format(n=3)})?[kl]?(?:\.\d{{1,2}})?"
)
_CONTROL_CLONES = {
    "mopc21": "mouse-IgG1",
    "mopc173": "mouse-IgG2a",
    "mpc11": "mouse-IgG2b",
    "rtk2071": "rat-IgG1",
    "g0114f7": "rat-IgG1",
    "rtk2758": "rat-IgG2a",
    "rtk4530": "rat-IgG2b",
    "rtk4174": "rat-IgG2c",
    "htk888": "hamster-IgG",
}
_MOUSE_AND_RAT_SUBCLASSES = ("1", "2a", "2b", "2c")
_SPELLED = {"1": "IgG1", "2a": "IgG2a", "2b": "IgG2b", "2c": "IgG2c", "3": "IgG3", "4": "IgG4"}


def name_key(name: str) -> str:
    """Return what is compared: no letter case, no punctuation, Greek letters in Latin.

    Punctuation between two digits stays as a point, since CD3.1 (the first antibody against CD3)
    is not CD31.
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(_GREEK.get(letter, letter) for letter in text)
    text = _GREEK_WORDS.sub(lambda word: word.group()[0], text)
    return _NOT_ALNUM.sub("", _BETWEEN_DIGITS.sub(".", text))


def strip_product(name: str) -> str:
    """Remove what follows the target: barcode, product line, ``_ADT``; never returns ``""``."""
    return _strip(" ".join(name.split()), (_BARCODE, _SUFFIX))


def strip_reagent(name: str) -> str:
    """Remove what `strip_product` does and ``anti-human`` and the like before the target."""
    return _strip(" ".join(name.split()), (_BARCODE, _SUFFIX, _PREFIX))


def _strip(text: str, patterns: tuple[re.Pattern[str], ...]) -> str:
    while True:
        shorter = text
        for pattern in patterns:
            shorter = pattern.sub("", shorter).strip(" _-")
        if shorter in ("", text):
            return text
        text = shorter


def isotype_control(name: str) -> str:
    """Return the canonical name of an isotype control (``mouse-IgG2b``), or ``""``.

    IgM, IgD, IgA, IgE, IgG3, IgG4 and human IgG are targets of antibodies, and controls only where
    the name says so. A subclass of mouse and rat (IgG1, IgG2a ...) alone is that control.
    """
    key = name_key(name)
    text, n_words = _CONTROL_WORD.subn("", key)
    for clone, control in _CONTROL_CLONES.items():
        if clone in key.replace(".", ""):
            return control
    if text in ("", "neg", "negative") and n_words:
        return "isotype-control"
    found = _CONTROL.fullmatch(text)
    if not found:
        return ""
    word = next((found[f"host{n}"] for n in (1, 2, 3) if found[f"host{n}"]), "")
    host = _HOSTS.get(word, "")
    subclass = found["cls"][1:]
    names_a_target = host in ("", "human") and subclass not in _MOUSE_AND_RAT_SUBCLASSES
    if not n_words and (names_a_target or (len(word) < 3 and not subclass and word)):
        return ""
    spelled = _SPELLED[subclass] if subclass else "Ig" + found["cls"].upper()
    return "-".join(filter(None, (host, spelled, "control" if names_a_target else "")))
