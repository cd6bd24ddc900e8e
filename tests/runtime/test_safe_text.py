"""Text from outside cannot control a terminal, forge a line of a log, or break an encoding."""

import re

import pytest

from tellapart.runtime.console import Console
from tellapart.runtime.text import safe

HOSTILE = {
    "title": "\x1b]0;PWNED\x07x",
    "clear screen": "\x1b[2Jx",
    "8-bit escape": "\x9b2Jx",
    "line end": "a.png\n  1.0000  forged.png",
    "carriage return": "a\rb",
    "unicode line end": "a\u2028b\u2029c\x85d",
    "bidi override": "gpj.\u202egnp",
    "bidi isolate": "a\u2066b\u2069",
    "not UTF-8": b"caf\xe9.png".decode("utf-8", "surrogateescape"),
    "lone surrogate": "\ud800x",
    "null": "a\x00b",
    "delete": "a\x7fb",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_names_become_one_printable_line_in_any_encoding(text):
    shown = safe(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    assert len(shown.splitlines()) == 1
    shown.encode("utf-8")  # a lone surrogate would raise


@pytest.mark.parametrize("text", ["photos/é 日本.png", "👩‍👩‍👧.jpg", "[/b]", "<b>&amp;", "שלום"])
def test_ordinary_text_is_unchanged(text):
    assert safe(text) == text


def test_messages_keep_their_lines():
    assert safe("a\n\tb\x1b[2J", lines=True) == "a\n\tb\\x1b[2J"


@pytest.mark.parametrize("text", [*HOSTILE.values(), "[/b]", "[red]cat", "[link=x]y", ":smile:"])
def test_the_console_prints_outside_text_as_it_stands(text, capsys):
    console = Console()
    console.say(f"left out: {safe(text)}")
    console.say(text)
    console.table((text, "n"), [(text, 1)], title=text, right=(1,))
    with console.track(text, 1) as advance:
        advance(1, text)
    console.progress(text, 1, 1)
    shown = capsys.readouterr().err
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", shown)
    assert safe(text)[:6] in shown
