"""A mail as a page: a coloured band with what matters, a few lines, a table where there is one, and where to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tuning.mail import Tone

COLOURS: Mapping[Tone, str] = {"good": "#1e7e4f", "bad": "#b03a2e", "quiet": "#34566f"}


def environment() -> Environment:
    """Jinja with autoescape for HTML: outside text (labels, error bodies, comments) stays text."""
    return Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(
    title: str,
    lines: Sequence[str],
    tone: Tone,
    links: Mapping[str, str],
    *,
    rows: Sequence[tuple[str, str]] = (),
    items: Sequence[tuple[str, str]] = (),
    header: Sequence[str] = (),
    table: Sequence[Sequence[str]] = (),
) -> str:
    """The HTML of a mail. rows: (label, text). items: (text, its address or ""). table: cells under `header`. links:
    addresses by what to do there; one that is no web address is left out."""
    shown = {label: url for label, url in links.items() if _is_web(url)}
    listed = [(text, url if _is_web(url) else "") for text, url in items]
    template = environment().get_template("notice.html")
    return template.render(
        title=title,
        lines=lines,
        colour=COLOURS[tone],
        links=shown,
        rows=rows,
        items=listed,
        header=header,
        table=table,
    )


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))
