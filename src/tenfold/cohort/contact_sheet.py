"""A contact sheet: every picture before and after its preparation, on one page, for a person to look at and sign.

It must not know how pictures are prepared, nor what they show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.errors import ImageError

STATEMENT = "I have looked at every picture: no name, date, calliper or text is left in it."
_SIDE = 420

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1f24; background: #fff; max-width: 74rem; margin: 1.5rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
.key b { padding: 0 .3rem; border: 2px solid; font-weight: 600; }
.region { color: #0b6b3a; } .blank { color: #b00020; } .bar { color: #6b2fb3; }
ol { list-style: none; padding: 0; display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); }
li { border: 1px solid #8a929c; padding: .5rem; break-inside: avoid; }
li p { margin: 0 0 .35rem; overflow-wrap: anywhere; font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; align-items: start; }
figure { margin: 0; } figcaption { font-size: .8rem; color: #4a525c; }
.picture { position: relative; background: #000; line-height: 0; }
.picture img { width: 100%; height: auto; }
.picture span { position: absolute; border: 2px solid; } .picture .region { border-color: #2fd07f; }
.picture .blank { border-color: #ff5468; } .picture .bar { border-color: #c08bff; }
.sign { border: 2px solid #1b1f24; padding: .8rem 1rem; margin-top: 1.5rem; break-inside: avoid; }
.sign p { margin: 0 0 .8rem; }
.sign div { display: grid; grid-template-columns: 2fr 1fr 2fr; gap: 1.2rem; }
.sign div span { border-top: 1px solid #1b1f24; padding-top: .2rem; margin-top: 2.2rem; font-size: .85rem; }
@media print {
  @page { size: A4; margin: 12mm; }
  body { font-size: 11px; margin: 0; padding: 0; max-width: none; }
  ol { grid-template-columns: 1fr 1fr; gap: 4mm; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


class Pair(NamedTuple):
    """One picture, twice.

    Attributes:
        name: Case, view and number, for the person who looks.
        before: uint8 (height, width) or (height, width, 3): as it came.
        after: uint8, the same, or (channels, height, width): as the network sees it.
        boxes: What is cut out ("region") and blackened ("blank", "bar") in `before`: left, top, right, bottom, pixels.
    """

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    boxes: Sequence[tuple[str, tuple[int, int, int, int]]] = ()


def contact_sheet(
    pictures: Sequence[Pair | tuple[str, NDArray[np.uint8], NDArray[np.uint8]]], *, title: str = "Contact sheet"
) -> str:
    """Put pictures before and after their preparation on one self-contained page, with a line to sign.

    Args:
        pictures: Each picture's name, before and after; as `Pair` with the boxes that are drawn on it.
        title: Heading of the page.

    Returns:
        HTML, the pictures inside it as PNG, reduced to 420 pixels where they are larger. It can be printed.

    Raises:
        ImageError: A picture is not uint8, or of another shape.
    """
    pairs = [Pair(*one) for one in pictures]
    items = "\n".join(_item(number, pair) for number, pair in enumerate(pairs, start=1))
    count = f"{len(pairs)} picture{'s' if len(pairs) != 1 else ''}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p><strong>{count}</strong>, each as it came and as the network sees it. Look at every one: names, dates and hospital
in the text around the picture, callipers and markers on it. What is left can be covered by a row in regions.csv.</p>
<p class="key">Drawn on the left: <b class="region">region</b> shown to the network, <b class="blank">blank</b>
blackened, <b class="bar">bar</b> blackened; where it is read as a scale, the right picture has false colours: red is
the value, green the brightness, blue where there is a value.</p>
<ol>
{items}
</ol>
<section class="sign" aria-label="Signature">
<p><strong>{count}.</strong> {STATEMENT}</p>
<div><span>Name</span><span>Date</span><span>Signature</span></div>
</section>
</body>
</html>
"""


def _item(number: int, pair: Pair) -> str:
    """One picture of the sheet."""
    name = escape(pair.name)
    return (
        f'<li><p>{number}. {name}</p><div class="pair">'
        f"<figure>{_picture(pair.before, f'{name}, before', pair.name, pair.boxes)}<figcaption>before</figcaption>"
        f"</figure><figure>{_picture(pair.after, f'{name}, after', pair.name)}<figcaption>after</figcaption></figure>"
        "</div></li>"
    )


def _picture(
    pixels: NDArray[Any], label: str, name: str, boxes: Sequence[tuple[str, tuple[int, int, int, int]]] = ()
) -> str:
    """An image, and boxes over it placed by their share of its sides."""
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ImageError(
            f"{pixels.dtype} of shape {pixels.shape}", expected="uint8, (height, width), and 3 of colour", where=name
        )
    height, width = pixels.shape[:2]
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG")
    data = base64.b64encode(out.getvalue()).decode("ascii")
    drawn = "".join(
        f'<span class="{escape(what)}" title="{escape(what)}" style="left:{left / width:.3%};top:{top / height:.3%};'
        f'width:{(right - left) / width:.3%};height:{(bottom - top) / height:.3%}"></span>'
        for what, (left, top, right, bottom) in boxes
    )
    return f'<div class="picture"><img alt="{label}" src="data:image/png;base64,{data}">{drawn}</div>'
