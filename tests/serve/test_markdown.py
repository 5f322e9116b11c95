"""Markdown of model cards becomes HTML, and nothing else gets through."""

from __future__ import annotations

import pytest

from tenfold.serve.markdown import to_html


def test_headings_lists_tables_and_code() -> None:
    text = (
        "# A\n\ntext **bold**\nmore `x < 1`\n## B\n- one\n- two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```\n<raw>\n```\n"
    )
    html = str(to_html(text))
    assert "<h1>A</h1>" in html
    assert "<p>text <b>bold</b> more <code>x &lt; 1</code></p>" in html
    assert "<ul><li>one</li><li>two</li></ul>" in html
    assert "<tr><td>1</td><td>2</td></tr>" in html
    assert "<pre><code>&lt;raw&gt;</code></pre>" in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "# <img src=x onerror=alert(1)>",
        "- &lt;script>alert(1)&lt;/script>",
        "[x](javascript:alert(1))",
        "**<b onclick=alert(1)>**",
        "| <script> | b |\n|---|---|\n| <iframe> | `<object>` |",
        "```\n</code></pre><script>",
    ],
)
def test_no_markup_of_the_text_survives(text: str) -> None:
    html = str(to_html(text))
    for tag in ("<script", "<img", "<iframe", "<object", "<a ", "<b onclick", "</pre><"):
        assert tag not in html


@pytest.mark.parametrize("text", ["", "|", "| a |", "-", "#", "```", "**", "| a |\n|", "a\n- b\nc"])
def test_odd_text_ends(text: str) -> None:
    to_html(text)
