"""Make text from outside (file names, labels, tensor names, messages) safe to show.

A file name can hold escape codes that clear a terminal, line ends that forge a line of a log,
direction marks that reverse what a reader sees, and bytes that no encoding can write.
"""

from __future__ import annotations

import unicodedata

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNSAFE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph ends


def safe(value: object, *, lines: bool = False) -> str:
    r"""Return text that can be shown in a terminal, a log, a page or a file.

    Control characters, direction marks, unusual line ends and lone surrogates (bytes of a file
    name that are not UTF-8) become visible escapes; everything else stays. HTML markup is not
    escaped here: the templates do that.

    Args:
        value: any value; what is not a string is converted by `str`.
        lines: keep line ends and tabs, for messages of several lines. Names never need them.

    Returns:
        Printable text that every Unicode encoding can write.

    >>> safe("\x1b[2Jcat\n.png"), safe("a\nb", lines=True)
    ('\\x1b[2Jcat\\n.png', 'a\nb')
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, lines) for character in text)


def _shown(character: str, lines: bool) -> str:
    if lines and character in "\n\t":
        return character
    if character in BIDI or unicodedata.category(character) in UNSAFE:
        number = ord(character)
        if 0xDC80 <= number <= 0xDCFF:  # a byte that was not UTF-8, as os.fsdecode holds it
            return f"\\x{number - 0xDC00:02x}"
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character
