"""Whatever text a report repeats, its mail can be written, sent and read, and no header comes out of it."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuning.mail import Mail, readable

EVERYTHING = st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF), max_size=80)
"""Lone surrogates and control characters included."""


def mail(subject: str = "s", html: str = "<p>h</p>", text: str = "t", id_: str = "abc", at_s: float = 1.0) -> Mail:
    return Mail(id=id_, subject=subject, html=html, text=text, at_s=at_s, images={"plot": b"\x89PNG"})


def sent(message: Mail) -> email.message.EmailMessage:
    raw = message.to_email(sender="slotune@example.com", to=("a@example.com",)).as_bytes(policy=email.policy.SMTP)
    return email.message_from_bytes(raw, policy=email.policy.default)  # type: ignore[return-value]


@settings(deadline=None)
@given(EVERYTHING, EVERYTHING, EVERYTHING, EVERYTHING, st.floats(allow_nan=True))
@example("a\r\nBcc: eve@example.com\r\n\r\n<h1>x", "\ud800", "\x1b[2J", "x>\r\nBcc: eve@example.com", float("inf"))
def test_any_text_can_be_sent_and_adds_no_header(subject: str, html: str, text: str, id_: str, at_s: float) -> None:
    back = sent(mail(subject, html, text, id_, at_s))
    assert {name.lower() for name in back} == {
        "subject", "from", "to", "date", "message-id", "mime-version", "content-type"}  # fmt: skip
    assert back["to"] == "a@example.com"
    assert back["message-id"].endswith("@example.com>")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("two\nlines\tkept", "two\nlines\tkept"),
        ("\r\n", "\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\x00b\x85c", "a\\x00b\\x85c"),
        ("\ud800", "\\ud800"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("Zeit: 5 ms – 3×, 日本, 👩‍💻", "Zeit: 5 ms – 3×, 日本, 👩‍💻"),
    ],
)
def test_what_is_harmful_stands_as_its_escape(given: str, shown: str) -> None:
    assert readable(given) == shown


def test_a_mail_that_is_sent_again_is_the_same_mail() -> None:
    assert sent(mail())["message-id"] == sent(mail())["message-id"] == "<slotune.abc@example.com>"
    body = sent(mail(html='<img src="cid:plot">')).get_body(("html",))
    assert body is not None and "cid:plot.abc@example.com" in body.get_content()
