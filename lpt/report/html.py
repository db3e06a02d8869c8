"""Parts of a page that needs nothing else: style, tables and figures are in it."""

import io
import re
from collections.abc import Iterable
from html import escape

from lpt.report.plotting import ACCENT, FAINT, INK, MUTED, PAPER, Plot
from lpt.report.style import STYLE_SHEET
from lpt.report.text_table import TextTable

# Colors of the page, which follow its light or dark theme.
THEMED = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", PAPER: "--paper", ACCENT: "--accent"}


def document(title: str, body: Iterable[str]) -> str:
    """Return the whole HTML file.

    Args:
        title: as plain text.
        body: parts in HTML.
    """
    head = (
        "<meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        '<meta name=color-scheme content="light dark">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE_SHEET}</style>",
    )
    parts = ["<!doctype html>", "<html lang=en>", "<head>", *head, "</head>", "<body>", "<main>", *body]
    return "\n".join([*parts, "</main>", "</body>", "</html>", ""])


def svg(plot: Plot) -> str:
    """Return a figure as an SVG file, the same bytes every time."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": plot.name}):
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def figure(plot: Plot) -> str:
    """Return a figure as inline SVG in the page's colors, with ids of its own among the page's other figures."""
    text = svg(plot)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{plot.name}-", text)
    for color, name in THEMED.items():
        text = text.replace(color.lower(), f"var({name})")
    label = escape(plot.caption, quote=True)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    width = re.search(r'width="([\d.]+)pt"', text)
    limit = f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    return f"<figure{limit}>{text}<figcaption>{escape(plot.caption)}</figcaption></figure>"


def section(heading: str, parts: Iterable[str]) -> list[str]:
    """Return parts under a heading; nothing where there are none."""
    parts = list(parts)
    return [f"<section><h2>{escape(heading)}</h2>", *parts, "</section>"] if parts else []


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """Return plain text as a list; `kind` is its class in the style sheet."""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(content: TextTable, kind: str = "") -> str:
    """Return a table; `kind` is its class in the style sheet."""
    words = content.words
    head = "".join(
        f'<th scope=col class="{"word" if j < words else "number"}">{escape(heading)}</th>'
        for j, heading in enumerate(content.headings)
    )
    rows = []
    for i, row in enumerate(content.rows):
        cells = []
        for j, cell in enumerate(row):
            mark, note = content.marks.get((i, j), ("", ""))
            attributes = f' class="{"word" if j < words else "number"} {mark}"'.replace(' "', '"')
            attributes += f' title="{escape(note, quote=True)}"' if note else ""
            tag = "th scope=row" if j == 0 else "td"
            cells.append(f"<{tag}{attributes}>{escape(cell)}</{tag[:2]}>")
        dress = "strong" if i in content.strong else "quiet" if i in content.quiet else ""
        rows.append(f'<tr class="{dress}">{"".join(cells)}</tr>' if dress else f"<tr>{''.join(cells)}</tr>")
    thead = f"<thead><tr>{head}</tr></thead>" if any(content.headings) else ""
    return f'<div class=wide><table class="{kind}">{thead}<tbody>{"".join(rows)}</tbody></table></div>'
