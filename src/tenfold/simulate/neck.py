"""Ultrasound of a neck, drawn: a lymph node in grey, in colour Doppler and as a map of stiffness.

It must not know any diagnosis, patient, scanner's screen, or where the pictures are kept.

A picture is a square of side 1, x to the right and y downwards into the body; grey levels are 0 to 255. What varies
without an attribute (plane, layers, speckle) is drawn from one generator, what belongs to an attribute from another.
Each view shows its own attributes and no others: the node's outline in Doppler and in the stiffness map is that of
another plane, drawn without looking at its size, so that the best reader of a view is the posterior of its attributes.
`legibility` scales all of them from absent (0) to plain (1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Picture = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_MIDDLE_AXIS, _MIDDLE_RATIO, _MIDDLE_KPA = 10.0, 1.75, 20.0
"""Short axis in mm, long to short, stiffness: towards these an illegible node is drawn."""
TISSUE_KPA = 10.0
_NODE, _HYPOECHOIC = 86.0, 38.0
"""Grey level of a node, and of a markedly hypoechoic one."""
_SPECKLE = 9.0
_BOX = (0.07, 0.12, 0.93, 0.97)
"""The colour box of Doppler and elastography: left, top, right, bottom."""


@dataclass(frozen=True)
class Morphology:
    """What the grey picture shows of a node.

    Attributes:
        short_axis: Extent into the depth, mm.
        long_short: Extent along the skin to that; below 1 it is taller than wide.
        hilum: Echogenic hilum.
        sharp: Sharp border.
        hypoechoic: Markedly hypoechoic.
        reticulation: Micronodular network.
        necrosis: Cystic necrosis.
        calcification: Bright spots with shadows.
        matting: Fused with its neighbours.
    """

    short_axis: float
    long_short: float
    hilum: bool = False
    sharp: bool = True
    hypoechoic: bool = False
    reticulation: bool = False
    necrosis: bool = False
    calcification: bool = False
    matting: bool = False


@dataclass(frozen=True)
class Flow:
    """What colour Doppler shows.

    Attributes:
        pattern: "none", "hilar", "peripheral" or "mixed".
        density: How many small signals there are, a z score.
    """

    pattern: str
    density: float


@dataclass(frozen=True)
class Stiffness:
    """What elastography shows.

    Attributes:
        kpa: Geometric mean over the node.
        rim: A stiff rim about it.
        heterogeneity: How much stiffness varies within it, a z score.
    """

    kpa: float
    rim: bool = False
    heterogeneity: float = 0.0


@dataclass(frozen=True)
class Machine:
    """How a machine renders: grey levels added, a factor, a factor on speckle, and its colour bar.

    Attributes:
        lighter: Grey levels added.
        contrast: Factor about mid-grey.
        grain: Factor on the size of speckle.
        top_kpa: Upper end of the bar; the lower end is 0.
        reversed: Red is soft.
    """

    lighter: float = 0.0
    contrast: float = 1.0
    grain: float = 1.0
    top_kpa: float = 100.0
    reversed: bool = False


@dataclass(frozen=True)
class Body:
    """What lies above a node: thinnest and thickest fat, deepest ends of the muscle or gland below it, mm."""

    fat: tuple[float, float]
    muscle: tuple[float, float]
    level: float


NECK = Body((3.5, 5.5), (9.0, 12.0), 112.0)
BREAST = Body((5.0, 9.0), (14.0, 20.0), 140.0)


@dataclass(frozen=True)
class Scene:
    """How one picture is taken.

    Attributes:
        size: Pixels a side.
        plane: Generator for all that varies without an attribute.
        detail: Generator for what belongs to the attributes.
        machine: How it is rendered.
        body: What lies above the node.
        legibility: 0: nothing of the node's attributes shows; 1: all are plain.
    """

    size: int
    plane: np.random.Generator
    detail: np.random.Generator
    machine: Machine = field(default_factory=Machine)
    body: Body = NECK
    legibility: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """A picture without anything burned in.

    Attributes:
        pixels: Grey levels (size, size), or (size, size, 3).
        mask: Where the node is, (size, size).
        width_mm: Millimetres across the picture.
        ends: The ends of the node's long axis, (x, y) each, for callipers.
    """

    pixels: Picture
    mask: Mask
    width_mm: float
    ends: tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class _Outline:
    """An ellipse: centre, half axes along the skin and into the depth, radians."""

    x: float
    y: float
    a: float
    b: float
    tilt: float

    def polar(self, size: int) -> tuple[Picture, Picture, Picture]:
        """Return coordinates in which the ellipse is the unit circle: along, aside, radius, (size, size) each."""
        x, y = _grid(size)
        c, s = math.cos(self.tilt), math.sin(self.tilt)
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        u, v = (np.float32(c) * dx + np.float32(s) * dy) / self.a, (np.float32(c) * dy - np.float32(s) * dx) / self.b
        return u, v, np.sqrt(u * u + v * v)

    def point(self, u: float, v: float) -> tuple[float, float]:
        """Return the place in the picture of a point given in the ellipse's coordinates."""
        c, s = math.cos(self.tilt), math.sin(self.tilt)
        return self.x + c * self.a * u - s * self.b * v, self.y + s * self.a * u + c * self.b * v


def draw_b_mode(node: Morphology, scene: Scene) -> Drawn:
    """Draw a grey picture.

    The depth is set by the node, as an examiner does: a larger node is shown larger, but less than in proportion.
    """
    size, plane, detail, legibility = scene.size, scene.plane, scene.detail, scene.legibility
    axis = math.exp(_mixed(math.log(_MIDDLE_AXIS), math.log(node.short_axis), legibility))
    ratio = float(np.clip(_mixed(_MIDDLE_RATIO, node.long_short, legibility), 0.45, 3.6))
    tall = min(0.27 * (axis / 10) ** 0.6, 0.62, 0.92 / ratio)
    at = _Outline(
        0.5 + plane.normal(0, 0.02), 0.57 + plane.normal(0, 0.02), tall * ratio / 2, tall / 2, plane.normal(0, 0.07)
    )
    width_mm = axis / tall
    grey = _layers(scene, width_mm)
    u, v, radius = at.polar(size)
    level = _mixed((_NODE + _HYPOECHOIC) / 2, _HYPOECHOIC if node.hypoechoic else _NODE, legibility)
    level += plane.normal(0, 2.5)
    blur = _mixed(0.5, 0.0 if node.sharp else 1.0, legibility)
    angle = np.arctan2(v, u)
    wave = np.sin(5 * angle + detail.uniform(0, 6.3)) + np.sin(8 * angle + detail.uniform(0, 6.3))
    if node.matting:
        _fuse(grey, at, level, legibility, detail)
    edge = (1 + np.float32(0.07 * blur) * wave - radius) * min(at.a, at.b)
    inside = _step(edge, 0.008 + blur * (0.01 + 0.25 * min(at.a, at.b)))
    grey += inside * (level - grey)
    grey += (1 - blur) * 62 * _bump(edge + 0.006, 0.011)
    _inner(grey, node, at, (u, v, radius), inside, legibility, detail)
    if node.calcification:
        _calcify(grey, at, legibility, detail)
    pixels = _rendered(grey, scene)
    return Drawn(pixels, radius < 1, width_mm, (at.point(-1, 0), at.point(1, 0)))


def draw_cdfi(flow: Flow, scene: Scene) -> Drawn:
    """Draw a colour Doppler picture: red towards the probe, blue away, over grey."""
    grey, at, width_mm = _plain_node(scene, dim=0.85)
    radius = at.polar(scene.size)[2]
    shown = _rendered(grey, scene)
    picture = np.repeat(shown[:, :, None], 3, axis=2)
    towards, away = _vessels(flow, at, scene.size, scene.detail)
    for amount, slow, fast in ((towards, (190, 0, 0), (255, 170, 20)), (away, (0, 10, 190), (30, 190, 255))):
        cover = np.clip(amount * 2.2, 0, 1) * np.float32(scene.legibility)
        speed = np.clip(amount, 0, 1)[:, :, None]
        colour = np.asarray(slow, np.float32) * (1 - speed) + np.asarray(fast, np.float32) * speed
        picture += cover[:, :, None] * (colour - picture)
    _outline_box(picture)
    return Drawn(picture, radius < 1, width_mm, (at.point(-1, 0), at.point(1, 0)))


def draw_elastography(stiffness: Stiffness, scene: Scene) -> Drawn:
    """Draw a map of stiffness in the machine's colours over dimmed grey."""
    machine = scene.machine
    grey, at, width_mm = _plain_node(scene, dim=0.55)
    radius = at.polar(scene.size)[2]
    kpa = stiffness_map(stiffness, radius, scene.detail, scene.legibility)
    picture = np.repeat(_rendered(grey, scene)[:, :, None], 3, axis=2)
    left, top, right, bottom = (round(edge * scene.size) for edge in _BOX)
    part = picture[top:bottom, left:right]
    part += 0.75 * (bar_colours(kpa[top:bottom, left:right] / machine.top_kpa, machine.reversed) - part)
    _outline_box(picture)
    return Drawn(picture, radius < 1, width_mm, (at.point(-1, 0), at.point(1, 0)))


def stiffness_map(stiffness: Stiffness, radius: Picture, rng: np.random.Generator, legibility: float = 1.0) -> Picture:
    """Return kPa at every pixel, before any bar cuts it.

    Within the node the logarithm has the node's mean exactly, and an SD that grows with heterogeneity.

    Args:
        stiffness: Of the node.
        radius: 1 on the node's border, (size, size).
        rng: For where it is stiffer.
        legibility: 0: any node is of one middling stiffness.
    """
    size = len(radius)
    node = radius < 1
    field = ndimage.gaussian_filter(rng.standard_normal(radius.shape, np.float32), 0.035 * size, mode="wrap")
    field = (field - field[node].mean()) / field[node].std()
    spread = _mixed(0.2, 0.05 + 0.13 * math.log1p(math.exp(stiffness.heterogeneity)), legibility)
    mean = _mixed(math.log(_MIDDLE_KPA), math.log(stiffness.kpa), legibility)
    around = math.log(TISSUE_KPA) + np.float32(0.12) * field
    if stiffness.rim:
        stiff = max(1.8 * math.exp(mean), math.exp(mean) + 25)
        around += legibility * (math.log(stiff) - around) * _step(0.16 - np.abs(radius - 1.14), 0.05)
    return np.asarray(np.exp(np.where(node, mean + spread * field, around)))


def bar_colours(share: Picture, backwards: bool = False) -> Picture:
    """Return the colours of a bar from blue over green to red, each fully saturated.

    Args:
        share: Place on the bar, 0 its lower and 1 its upper end, any shape; cut to that range.
        backwards: From red to blue.

    Returns:
        (..., 3), 0 to 255. No two places share a hue.
    """
    share = np.clip(share, 0, 1)
    hue = 4 * (share if backwards else 1 - share)
    ramps = (2 - hue, np.minimum(hue, 4 - hue), hue - 2)
    return np.stack([255 * np.clip(ramp, 0, 1) for ramp in ramps], axis=-1).astype(np.float32)


def _mixed(absent: float, plain: float, legibility: float) -> float:
    return absent + legibility * (plain - absent)


@cache
def _grid(size: int) -> tuple[Picture, Picture]:
    axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return axis[None, :], axis[:, None]


def _step(inside: Picture, soft: float) -> Picture:
    """Go from 0 to 1 where a distance crosses 0, over a width of twice `soft`."""
    ramp = np.clip(inside / np.float32(2 * soft) + np.float32(0.5), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def _bump(distance: Picture, width: float) -> Picture:
    return np.asarray(np.exp(-((distance / np.float32(width)) ** 2)), np.float32)


def _layers(scene: Scene, width_mm: float) -> Picture:
    """Skin, fat, fascia, muscle and what lies below, at true scale; at times a large vessel."""
    size, rng, body = scene.size, scene.plane, scene.body
    x, y = _grid(size)
    depth = y * np.float32(width_mm) + np.float32(0.4) * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6))
    fat, muscle = rng.uniform(*body.fat), rng.uniform(*body.muscle)
    streak = ndimage.gaussian_filter(rng.standard_normal((size, size), np.float32), (0.008 * size, 0.07 * size))
    streak *= np.float32(1 / streak.std())
    grey = np.float32(128) - np.float32(0.25) * np.maximum(depth - 12, 0) + 7 * streak
    grey += (body.level - grey) * _step(muscle - depth, 0.4) * 0.8
    grey += (100 + 6 * streak - grey) * _step(fat - depth, 0.3)
    grey += 75 * _step(1.5 - depth, 0.3)
    for line in (fat, muscle):
        grey += 45 * _bump(depth - np.float32(line), 0.35)
    if rng.random() < 0.4:
        side, deep = rng.choice((-0.02, 1.02)), rng.uniform(0.82, 1.0)
        round_ = np.hypot(x - np.float32(side), y - np.float32(deep)) - np.float32(rng.uniform(0.10, 0.15))
        grey += (16 - grey) * _step(-round_, 0.02)
        grey += 50 * _bump(round_, 0.012)
    return np.asarray(grey, np.float32)


def _plain_node(scene: Scene, dim: float) -> tuple[Picture, _Outline, float]:
    """Draw a node that tells nothing: in a plane and at a zoom chosen without looking at it."""
    rng = scene.plane
    tall = rng.uniform(0.36, 0.44)
    at = _Outline(
        0.5 + rng.normal(0, 0.02),
        0.56 + rng.normal(0, 0.02),
        tall * rng.uniform(1.25, 1.5) / 2,
        tall / 2,
        rng.normal(0, 0.08),
    )
    width_mm = rng.uniform(20, 40)
    grey = _layers(scene, width_mm)
    edge = (1 - at.polar(scene.size)[2]) * np.float32(at.b)
    grey += _step(edge, 0.03) * (78 - grey)
    return dim * grey, at, width_mm


def _fuse(grey: Picture, at: _Outline, level: float, strength: float, rng: np.random.Generator) -> None:
    """Put a neighbour at each end, of the node's own grey and without any fat between."""
    for end in (-1, 1):
        x, y = at.point(0.95 * end, 0.45 * float(rng.choice((-1, 1))))
        reach = 0.95 * min(at.a, at.b)
        other = _Outline(x, y, reach * rng.uniform(0.95, 1.15), reach, 0.0)
        edge = (1 - other.polar(len(grey))[2]) * np.float32(reach)
        grey += strength * _step(edge, 0.012) * (level + 6 - grey)
        grey += strength * 55 * _bump(edge, 0.011)


def _inner(
    grey: Picture,
    node: Morphology,
    at: _Outline,
    place: tuple[Picture, Picture, Picture],
    inside: Picture,
    strength: float,
    rng: np.random.Generator,
) -> None:
    """Network, hilum and necrosis, in this order."""
    u, v, radius = place
    if node.reticulation:
        x, y = _grid(len(grey))
        step, a, b = 0.085 / math.pi, *rng.uniform(0, 6.3, 2)
        warp = ndimage.gaussian_filter(rng.standard_normal(radius.shape, np.float32), 0.05 * len(grey), mode="wrap")
        x = x + warp * np.float32(0.012 / warp.std())
        net = np.minimum(np.abs(np.sin((x + y) / step + a)), np.abs(np.sin((x - y) / step + b)))
        grey += strength * 72 * inside * _bump(net, 0.33)
    if node.hilum:
        dx, dy = rng.normal(0, 0.06, 2)
        core = np.hypot((u - np.float32(dx)) / 0.58, (v - np.float32(dy)) / 0.30)
        grey += strength * _step(1 - core, 0.2) * (178 - grey)
    if node.necrosis:
        side = float(rng.choice((-1, 1)))
        big, centre = 0.40 * min(at.a, at.b), at.point(0.45 * side, rng.uniform(0.1, 0.4))
        hole = _Outline(*centre, max(1.25 * big, 0.045), max(big, 0.036), 0.0)
        edge = (1 - hole.polar(len(grey))[2]) * np.float32(hole.b)
        cyst = strength * _step(edge, 0.008)
        grey += cyst * (4 - grey)
        grey += strength * 60 * _bump(edge + 0.012, 0.010)
        x, y = _grid(len(grey))
        behind = _step(hole.a - np.abs(x - np.float32(hole.x)), 0.015) * _step(y - np.float32(hole.y + hole.b), 0.03)
        grey += strength * 30 * behind * (1 - cyst)


def _calcify(grey: Picture, at: _Outline, strength: float, rng: np.random.Generator) -> None:
    """A few bright spots, each with its shadow."""
    x, y = _grid(len(grey))
    for k in range(4):
        angle = math.pi / 2 * k + rng.uniform(0, 1.2)
        far = rng.uniform(0.35, 0.7)
        px, py = at.point(far * math.cos(angle), far * math.sin(angle))
        shadow = _step(0.016 - np.abs(x - np.float32(px)), 0.008) * _step(y - np.float32(py), 0.01)
        grey *= 1 - np.float32(0.5 * strength) * shadow
        spot = np.exp(-((x - np.float32(px)) ** 2 + (y - np.float32(py)) ** 2) / np.float32(2 * 0.014**2))
        grey += np.float32(strength) * np.minimum(1.3 * spot, 1) * (255 - grey)


_FINE = 2
"""Vessels are drawn so many times larger and averaged."""


def _vessels(flow: Flow, at: _Outline, size: int, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Return velocity towards the probe and away from it, 0 to 1, (size, size) each."""
    sheets = [Image.new("L", (_FINE * size, _FINE * size)) for _ in range(2)]
    pens = [ImageDraw.Draw(sheet) for sheet in sheets]
    scale = float(_FINE * size)
    wide = 0.019 * (1 + 0.18 * float(np.clip(flow.density, -2, 3)))

    def stroke(points: list[tuple[float, float]], width: float) -> None:
        dots = [tuple(scale * c for c in at.point(u, v)) for u, v in points]
        pens[int(rng.integers(2))].line(dots, int(rng.integers(150, 256)), max(round(width * scale), 1), "curve")

    if flow.pattern in ("hilar", "mixed"):
        _hilar(stroke, wide, rng)
    if flow.pattern in ("peripheral", "mixed"):
        _peripheral(stroke, wide, rng)
    count = round(13 * math.exp(0.55 * float(np.clip(flow.density, -4, 4))))
    far, angle = np.sqrt(rng.uniform(0.02, 0.75, count)), rng.uniform(0, 2 * math.pi, count)
    for r, phi in zip(far.tolist(), angle.tolist(), strict=True):
        x, y = (scale * c for c in at.point(r * math.cos(phi), r * math.sin(phi)))
        half = 0.012 * scale
        pens[int(rng.integers(2))].ellipse((x - half, y - half, x + half, y + half), int(rng.integers(90, 200)))
    fine = [np.asarray(sheet, np.float32) / 255 for sheet in sheets]
    towards, away = (s.reshape(size, _FINE, size, _FINE).mean(axis=(1, 3)) for s in fine)
    return towards, away


def _hilar(stroke: Any, wide: float, rng: np.random.Generator) -> None:
    """One stem that enters at the hilum and branches in the middle."""
    enters = rng.uniform(0, 2 * math.pi)
    root, heart = (0.95 * math.cos(enters), 0.95 * math.sin(enters)), rng.normal(0, 0.05, 2).tolist()
    stroke([root, (0.5 * root[0], 0.5 * root[1]), tuple(heart)], 1.5 * wide)
    for k in range(4):
        angle = enters + math.pi + (k - 1.5) * 0.75 + rng.normal(0, 0.1)
        tip = (0.52 * math.cos(angle), 0.52 * math.sin(angle))
        stroke([tuple(heart), (0.5 * (heart[0] + tip[0]) + 0.05, 0.5 * (heart[1] + tip[1])), tip], wide)


def _peripheral(stroke: Any, wide: float, rng: np.random.Generator) -> None:
    """Arcs along the capsule, with twigs that reach inwards."""
    start = rng.uniform(0, 2 * math.pi)
    for k in range(5):
        first = start + k * 2 * math.pi / 5
        angles = np.linspace(first, first + rng.uniform(0.6, 0.95), 6)
        stroke([(0.98 * math.cos(a), 0.98 * math.sin(a)) for a in angles], wide)
        a = float(angles[int(rng.integers(6))])
        stroke([(0.98 * math.cos(a), 0.98 * math.sin(a)), (0.76 * math.cos(a), 0.76 * math.sin(a))], 0.8 * wide)


def _outline_box(picture: Picture) -> None:
    """Draw the frame of the colour box, a pixel wide."""
    size = len(picture)
    left, top, right, bottom = (round(edge * size) for edge in _BOX)
    for row in (top, bottom - 1):
        picture[row, left:right] = 185
    for column in (left, right - 1):
        picture[top:bottom, column] = 185


def _rendered(grey: Picture, scene: Scene) -> Picture:
    """Lay speckle over grey levels, less of it where it is dark, as the machine renders them."""
    machine, wide = scene.machine, scene.size * scene.machine.grain
    noise = scene.plane.standard_normal(grey.shape, np.float32)
    noise = ndimage.gaussian_filter(noise, (0.0055 * wide, 0.009 * wide), mode="wrap")
    speckle = noise * np.float32(_SPECKLE / noise.std())
    rough = grey + speckle * np.clip(grey / 70, 0.35, 1.2)
    return np.asarray(np.clip(110 + machine.contrast * (rough - 110) + machine.lighter, 0, 255), np.float32)
