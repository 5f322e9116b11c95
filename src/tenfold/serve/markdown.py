"""The Markdown of model cards as HTML: headings, lists, paragraphs, code, bold, emphasis, tables of bars. Nothing else.

It must not know what a card says, and lets no markup through: everything is escaped before a sign of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

_HEADING = re.compile(r"(#{1,4})\s+(.*)")
_ITEM = re.compile(r"[-*]\s+(.*)")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
_MARKS = (
    (re.compile(r"`([^`]+)`"), "code"),
    (re.compile(r"\*\*(.+?)\*\*"), "b"),
    (re.compile(r"\*([^*\s][^*]*)\*"), "em"),
)


def to_html(text: str) -> Markup:
    """Turn Markdown into HTML that is safe whatever the text is.

    Args:
        text: Markdown. What is no heading, list, table or block of code is a paragraph; links stay text.
    """
    return Markup("\n").join(_blocks(text.replace("&lt;", "<").splitlines()))


def _blocks(lines: Sequence[str]) -> Iterator[Markup]:
    """Yield the parts of a page."""
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        start = i
        if not line:
            i += 1
        elif line.startswith("```"):
            i = next((j for j in range(i + 1, len(lines)) if lines[j].strip().startswith("```")), len(lines))
            yield Markup("<pre><code>{}</code></pre>").format("\n".join(lines[start + 1 : i]))
            i += 1
        elif heading := _HEADING.fullmatch(line):
            level = len(heading[1])
            yield Markup("<h{0}>{1}</h{0}>").format(level, _inline(heading[2]))
            i += 1
        elif _ITEM.fullmatch(line):
            while i < len(lines) and _ITEM.fullmatch(lines[i].strip()):
                i += 1
            items = [_inline(re.sub(r"^[-*]\s+", "", one.strip())) for one in lines[start:i]]
            yield Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(one) for one in items))
        elif line.startswith("|") and i + 1 < len(lines) and _RULE.fullmatch(lines[i + 1].strip()):
            while i < len(lines) and lines[i].strip().startswith("|"):
                i += 1
            yield _table(lines[start:i])
        else:
            while i < len(lines) and lines[i].strip() and (i == start or not _starts_block(lines[i].strip())):
                i += 1
            yield Markup("<p>{}</p>").format(_inline(" ".join(one.strip() for one in lines[start:i])))


def _starts_block(line: str) -> bool:
    return bool(_HEADING.fullmatch(line) or _ITEM.fullmatch(line) or line.startswith("```"))


def _table(lines: Sequence[str]) -> Markup:
    """A table of bars; its second line is the rule."""
    rows = [[_inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]

    def row(cells: Sequence[Markup], tag: str) -> Markup:
        return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<{0}>{1}</{0}>").format(tag, c) for c in cells))

    body = Markup("").join(row(cells, "td") for cells in rows[2:])
    return Markup('<div class="scroll"><table><thead>{}</thead><tbody>{}</tbody></table></div>').format(
        row(rows[0], "th"), body
    )


def _inline(text: str) -> Markup:
    """Escape a line, then read code, bold and emphasis in it."""
    safe = str(escape(text))
    for pattern, tag in _MARKS:
        safe = pattern.sub(rf"<{tag}>\1</{tag}>", safe)
    return Markup(safe)
