"""A newborn's abdomen, drawn: body, bones, liver, gas-filled loops, and the seven signs of necrotising enterocolitis.

It must not know any diagnosis, stage, laboratory value, or where the films are kept.

The patient's frame is [-1, 1] x [-1, 1], x to the right of the picture (the patient's left) and y downwards; grey
levels are 0 to 255, bright being dense. What varies from child to child (`layout`) is drawn from one generator and what
belongs to a sign from another, so that two films of one layout differ by their signs alone. `legibility` scales every
sign from absent (0) to plain (1); at 0 a film with signs is the same film without them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]

SIGNS = ("dilated", "fixed", "wall", "pneumatosis", "portal_gas", "free_air", "ascites")
"""Dilated loops, a fixed loop, thick bowel wall, gas within the wall, gas in the portal vein, free air, fluid."""

_ROWS = {-0.06: 0.17, 0.21: 0.06, 0.48: 0.0}
"""Height of a row of loops -> how much lower it lies on the liver's side."""
_COLUMNS = (-0.48, -0.16, 0.16, 0.48)
_LOWEST_ROW = 0.74
_SOFT = 0.022
"""Half the width of an edge: about a pixel in 96."""


@dataclass(frozen=True)
class Build:
    """What belongs to a kind of child: lengths in the patient's frame, grey levels.

    Attributes:
        trunk: Half the width of the trunk.
        dome: Height of the domes of the diaphragm.
        loop: Radius of an ordinary loop of bowel.
        spread: How far the loops lie apart, as a factor.
        tissue: Grey level of soft tissue.
        liver: How much brighter the liver is.
        bone: How much brighter bone is.
        gas: Grey level of bowel gas.
    """

    trunk: float = 0.78
    dome: float = -0.58
    loop: float = 0.095
    spread: float = 1.0
    tissue: float = 122.0
    liver: float = 24.0
    bone: float = 46.0
    gas: float = 42.0


@dataclass(frozen=True)
class Exposure:
    """What belongs to one exposure: radians, a factor, lengths in the picture's frame, grey levels, a factor."""

    rotation: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    lighter: float = 0.0
    contrast: float = 1.0


@dataclass(frozen=True)
class Loop:
    """A loop of bowel: a sausage of gas with a wall about it; lengths in the patient's frame.

    Attributes:
        x: Centre.
        y: Centre.
        radius: Half the lumen's width.
        half: Half the length of its axis; 0 is a circle.
        angle: Of the axis, radians.
        gas: Opacity of its gas, 0 to 1.
        wall: Thickness of the wall.
        wall_level: Grey level of the wall.
        wall_strength: Opacity of the wall, 0 to 1.
        bubbles: Opacity of bubbles within the wall, 0 to 1.
    """

    x: float
    y: float
    radius: float
    half: float
    angle: float
    gas: float
    wall: float = 0.022
    wall_level: float = 138.0
    wall_strength: float = 0.6
    bubbles: float = 0.0


@dataclass(frozen=True)
class Film:
    """A film without noise.

    Attributes:
        grey: Grey levels, (size, size).
        masks: Where each sign that was asked for lies, (size, size) each; of a changed loop all, wall and gas.
    """

    grey: Picture
    masks: dict[str, Mask]


def vary_build(mean: Build, rng: np.random.Generator) -> Build:
    """Draw a child around a mean one; deviations are cut at 2 SD."""
    spread = Build(0.03, 0.035, 0.008, 0.03, 5.0, 5.0, 6.0, 6.0)
    return Build(*_around(vars(mean), vars(spread), rng))


def vary_exposure(mean: Exposure, rng: np.random.Generator) -> Exposure:
    """Draw one exposure around a mean one; deviations are cut at 2 SD."""
    spread = Exposure(0.045, 0.035, 0.03, 0.03, 8.0, 0.06)
    return Exposure(*_around(vars(mean), vars(spread), rng))


def draw_abdomen(
    build: Build,
    exposure: Exposure,
    signs: Collection[str],
    size: int,
    *,
    layout: np.random.Generator,
    sign: np.random.Generator,
    legibility: float = 1.0,
) -> Film:
    """Draw one film.

    Args:
        build: The child.
        exposure: How it lies and how it is exposed.
        signs: Which of `SIGNS` it bears.
        size: Pixels a side.
        layout: For all that varies without a sign.
        sign: For what belongs to the signs.
        legibility: 0: no sign shows; 1: every sign is plain.
    """
    canvas = _Canvas(build, exposure, size)
    _body(canvas, layout)
    loops, lowest, order = _loops(build, layout)
    tube = layout.random() < 0.4
    drawn = {name: legibility if name in signs else 0.0 for name in SIGNS}
    if "ascites" in signs:
        _ascites(canvas, drawn["ascites"])
    middle = 0.38 * drawn["ascites"]
    loops = [_pulled(loop, middle) for loop in loops]
    for loop in (_pulled(loop, middle) for loop in lowest):
        _paint(canvas, loop)
    roles = _roles(len(order), signs, sign)
    painted = [
        (_signed(loops[k], name, drawn.get(name, 0.0), sign), name) for k, name in zip(order, roles, strict=True)
    ]
    if "fixed" in signs:
        painted.insert(roles.count(""), (_fixed(build, drawn["fixed"], middle, sign), "fixed"))
    for loop, name in painted:
        _paint(canvas, loop, sign=name)
    if "portal_gas" in signs:
        _portal_gas(canvas, drawn["portal_gas"], sign)
    if "free_air" in signs:
        _free_air(canvas, drawn["free_air"], sign)
    if tube:
        _tube(canvas, layout)
    grey = 110 + exposure.contrast * (canvas.grey - 110) + exposure.lighter
    return Film(grey, canvas.masks)


@dataclass
class _Canvas:
    """A film in the making, in the patient's frame."""

    build: Build
    exposure: Exposure
    size: int
    x: Picture = field(init=False)
    y: Picture = field(init=False)
    grey: Picture = field(init=False)
    trunk: Picture = field(init=False)
    under_dome: Picture = field(init=False)
    masks: dict[str, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        axis = _axis(self.size)
        e = self.exposure
        c, s = math.cos(e.rotation) / e.scale, math.sin(e.rotation) / e.scale
        across, down = (axis - np.float32(e.shift_x))[None, :], (axis - np.float32(e.shift_y))[:, None]
        self.x = np.float32(c) * across + np.float32(s) * down
        self.y = np.float32(c) * down - np.float32(s) * across

    def window(self, x: float, y: float, reach: float) -> Window:
        """Return the part of the film within `reach` of a point; painting all of it would take most of the time."""
        e = self.exposure
        c, s = e.scale * math.cos(e.rotation), e.scale * math.sin(e.rotation)
        across, down, reach = c * x - s * y + e.shift_x, c * y + s * x + e.shift_y, reach * e.scale + 0.03
        return self._slice(down, reach), self._slice(across, reach)

    def _slice(self, centre: float, reach: float) -> slice:
        first = int((centre - reach + 1) * self.size / 2)
        last = int((centre + reach + 1) * self.size / 2) + 1
        return slice(min(max(first, 0), self.size - 1), min(max(last, 1), self.size))

    def rows(self, top: float, bottom: float) -> slice:
        """Return the rows of the film in which heights from `top` to `bottom` are seen."""
        e = self.exposure
        tilt = abs(math.sin(e.rotation)) * 0.9
        low, high = (e.scale * (top - tilt) + e.shift_y), (e.scale * (bottom + tilt) + e.shift_y)
        return self._slice((low + high) / 2, (high - low) / 2)

    def lay(self, alpha: Picture, level: float, where: Window | None = None) -> None:
        """Cover what is there by a grey level, as far as it is opaque."""
        part = self.grey if where is None else self.grey[where]
        part += alpha * (np.float32(level) - part)

    def mark(self, sign: str, seen: Mask, where: Window | None = None) -> None:
        """Add pixels to the mask of a sign."""
        mask = self.masks.setdefault(sign, np.zeros((self.size, self.size), bool))
        if where is None:
            mask |= seen
        else:
            mask[where] |= seen


def _body(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Trunk, lungs, heart, liver, bones, stomach: everybody's."""
    build, x, y = canvas.build, canvas.x, canvas.y
    side = np.abs(x)
    canvas.trunk = _step(build.trunk - 0.10 * y * y - side, 0.03)
    canvas.under_dome = y - build.dome - 0.55 * (side - 0.30) ** 2
    grey = 14 + (build.tissue - 14 - 26 * np.maximum(side - 0.45, 0) + _mottle(x, y, rng)) * canvas.trunk
    canvas.grey = grey
    _upper_body(canvas, rng)
    disc = np.cos(2 * np.pi * (y / 0.20 + rng.random()))
    grey += build.bone * _step(0.075 - side, 0.02) * (0.75 + 0.25 * _step(disc + 0.5, 0.4))
    low = canvas.rows(0.65, 1.2)
    wing = np.hypot((side[low] - 0.46) / 0.26, (y[low] - 0.93) / 0.22)
    grey[low] += 0.8 * build.bone * _step(0.18 - np.abs(wing - 0.85), 0.10) * canvas.trunk[low]
    stomach = Loop(
        0.42 + rng.normal(0, 0.04),
        build.dome + 0.24 + rng.normal(0, 0.02),
        rng.uniform(0.09, 0.13),
        rng.uniform(0.03, 0.08),
        rng.normal(0.5, 0.3),
        rng.uniform(0.4, 0.95),
    )
    _paint(canvas, stomach)


def _upper_body(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Lungs, heart, liver and ribs."""
    build, where = canvas.build, canvas.rows(-1.5, 0.40)
    x, y, grey, trunk = canvas.x[where], canvas.y[where], canvas.grey[where], canvas.trunk[where]
    side = np.abs(x)
    below = _step(canvas.under_dome[where], _SOFT)
    grey += (48 - grey) * (1 - below) * _step(0.66 - side, 0.04) * 0.9
    heart = _step(0.30 - np.hypot(x - 0.10, 1.1 * (y - build.dome + 0.14)), 0.03)
    grey += (150 - grey) * heart * (1 - below) * 0.9
    edge = 0.10 + rng.normal(0, 0.03) - 0.62 * (x + 0.45) - y
    grey += build.liver * _step(edge, 0.03) * below * _step(0.22 - x, 0.05) * _step(build.trunk - 0.10 - side, 0.04)
    ribs = np.cos(2 * np.pi * ((y - 0.45 * side) / 0.19 + rng.random()))
    grey += 0.26 * build.bone * _step(ribs - 0.45, 0.3) * _step(side - 0.30, 0.05) * _step(0.05 - y, 0.15) * trunk


def _loops(build: Build, rng: np.random.Generator) -> tuple[list[Loop], list[Loop], list[int]]:
    """Place everybody's loops.

    Returns:
        The loops of the upper rows, which signs may change; those of the lowest row; the order in which signs take
        the upper ones.
    """
    share = rng.uniform(0.45, 1.0)
    upper = [
        _ordinary(
            build, x, y + (0.17 if x < 0 and y < 0 else 0.0) + (0.06 if x < 0 and 0 < y < 0.4 else 0.0), share, rng
        )
        for y in _ROWS
        for x in _COLUMNS
    ]
    lowest = [_ordinary(build, 0.75 * x, _LOWEST_ROW, share, rng) for x in _COLUMNS]
    return upper, lowest, rng.permutation(len(upper)).tolist()


def _ordinary(build: Build, x: float, y: float, share: float, rng: np.random.Generator) -> Loop:
    a, b, c, d, e, f, g = rng.random(7)
    gas = 0.30 + 0.65 * f if g < share else 0.0
    return Loop(
        build.spread * x + 0.09 * (a - 0.5),
        y + 0.09 * (b - 0.5),
        build.loop * (0.75 + 0.5 * c),
        0.06 * d,
        math.pi * e,
        gas,
        wall_strength=0.6 if gas else 0.0,
    )


def _roles(slots: int, signs: Collection[str], rng: np.random.Generator) -> list[str]:
    """Say which sign changes each loop, in the order of painting: ordinary loops first, bubbles last."""
    counts = {"dilated": 4 + int(rng.integers(2)), "wall": 3, "pneumatosis": 3}
    signed = [name for name, count in counts.items() if name in signs for _ in range(count)]
    return [""] * (slots - len(signed)) + signed


def _signed(loop: Loop, sign: str, strength: float, rng: np.random.Generator) -> Loop:
    """Change an ordinary loop as a sign does, from not at all (0) to plainly (1)."""
    if not sign:
        return loop
    gas = loop.gas + strength * (max(loop.gas, 0.8) - loop.gas)
    values = {**vars(loop), "gas": gas}
    if sign == "dilated":
        values["radius"] += strength * (rng.uniform(0.18, 0.22) - loop.radius)
        values["wall_strength"] += strength * (0.6 - loop.wall_strength)
        return Loop(**values)
    wide, level = (0.062, 222.0) if sign == "wall" else (0.095, 158.0)
    values["wall"] += strength * (wide - loop.wall)
    values["wall_level"] += strength * (level - loop.wall_level)
    values["wall_strength"] += strength * (0.9 - loop.wall_strength)
    values["bubbles"] = strength if sign == "pneumatosis" else 0.0
    values["half"] *= 1 - 0.7 * strength * (sign == "pneumatosis")
    return Loop(**values)


def _fixed(build: Build, strength: float, middle: float, rng: np.random.Generator) -> Loop:
    """One long, stiff loop in the right lower quadrant."""
    loop = Loop(
        -0.16 + rng.normal(0, 0.03),
        0.70 + rng.normal(0, 0.02),
        0.95 * build.loop,
        0.36,
        -0.18 + rng.normal(0, 0.05),
        0.95 * strength,
        wall_strength=0.7 * strength,
    )
    return _pulled(loop, 0.5 * middle)


def _pulled(loop: Loop, share: float) -> Loop:
    """Move a loop towards the middle of the abdomen, as floating bowel moves."""
    if not share:
        return loop
    return Loop(**{**vars(loop), "x": (1 - share) * loop.x, "y": loop.y + share * (0.28 - loop.y)})


def _paint(canvas: _Canvas, loop: Loop, sign: str = "") -> None:
    """Paint a loop over what is there: wall, gas, bubbles; mark what the sign is."""
    if not (loop.gas or loop.wall_strength or sign):
        return
    where = canvas.window(loop.x, loop.y, loop.radius + loop.half + loop.wall + 2 * _SOFT)
    dx, dy = canvas.x[where] - np.float32(loop.x), canvas.y[where] - np.float32(loop.y)
    c, s = np.float32(math.cos(loop.angle)), np.float32(math.sin(loop.angle))
    along, aside = c * dx + s * dy, c * dy - s * dx
    beyond = np.maximum(np.abs(along) - np.float32(loop.half), 0)
    inside = np.float32(loop.radius) - np.sqrt(beyond * beyond + aside * aside)
    if loop.wall_strength:
        canvas.lay(loop.wall_strength * _step(inside + loop.wall, _SOFT), loop.wall_level, where)
    canvas.lay(loop.gas * _step(inside, _SOFT), canvas.build.gas, where)
    if loop.bubbles:
        count = max(round(2 * math.pi * (loop.radius + 0.045) / 0.105), 4)
        beads = _step(np.cos(count * np.arctan2(aside, along)) - 0.1, 0.45)
        canvas.lay(loop.bubbles * beads * _step(0.032 - np.abs(inside + 0.046), 0.016), 24.0, where)
    if sign:
        canvas.mark(sign, inside > -loop.wall, where)


def _portal_gas(canvas: _Canvas, strength: float, rng: np.random.Generator) -> None:
    """Dark lines that branch outwards over the liver."""
    top = canvas.build.dome
    hilum = (-0.02 + rng.normal(0, 0.02), top + 0.36)
    fork = (hilum[0] - 0.17, top + 0.30 + rng.normal(0, 0.02))
    where = canvas.window(-0.32, top + 0.28, 0.42)
    alpha = _line(canvas, where, hilum, fork)
    for turn in (-0.75, -0.2, 0.35, 0.85):
        bend = turn + rng.normal(0, 0.10)
        middle = (fork[0] - 0.17 * math.cos(bend), fork[1] + 0.15 * math.sin(bend))
        bend += 0.45 * math.copysign(1, turn)
        far = (middle[0] - 0.16 * math.cos(bend), middle[1] + 0.14 * math.sin(bend))
        alpha = np.maximum(alpha, np.maximum(_line(canvas, where, fork, middle), _line(canvas, where, middle, far)))
    alpha *= _step(canvas.under_dome[where] - 0.03, _SOFT)
    canvas.lay(0.9 * strength * alpha, 52.0, where)
    canvas.mark("portal_gas", alpha > 0.4, where)


def _line(canvas: _Canvas, where: Window, start: tuple[float, float], end: tuple[float, float]) -> Picture:
    """Say where a line of two or three pixels in 96 runs, 0 to 1."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    u, v = canvas.x[where] - np.float32(start[0]), canvas.y[where] - np.float32(start[1])
    t = np.clip((u * np.float32(dx) + v * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
    return _step(np.float32(0.026) - np.hypot(u - t * np.float32(dx), v - t * np.float32(dy)), 0.018)


def _free_air(canvas: _Canvas, strength: float, rng: np.random.Generator) -> None:
    """Air under both domes, and a football of it over the middle with the falciform ligament in it."""
    deep, wide = rng.uniform(0.09, 0.12), rng.uniform(0.40, 0.46)
    under = canvas.under_dome - 0.035
    crescent = _step(under, 0.02) * _step(deep - under, 0.02) * _step(0.60 - np.abs(canvas.x), 0.03)
    canvas.lay(0.35 * strength * _step(0.03 - np.abs(canvas.under_dome - 0.01), 0.015) * canvas.trunk, 190.0)
    canvas.lay(0.95 * strength * crescent, 20.0)
    u, v = (canvas.x - np.float32(0.02)) / np.float32(wide), (canvas.y - np.float32(0.10)) / np.float32(0.40)
    football = _step(1 - np.hypot(u, v), 0.08)
    canvas.lay(0.42 * strength * football, 20.0)
    ligament = np.abs(canvas.x + np.float32(0.10) + np.float32(0.25) * canvas.y)
    canvas.lay(0.6 * strength * football * _step(0.014 - ligament, 0.014), 170.0)
    canvas.mark("free_air", (crescent > 0.5) | (football > 0.5))


def _ascites(canvas: _Canvas, strength: float) -> None:
    """A grey haze in both flanks."""
    flank = _step(np.abs(canvas.x) - 0.46, 0.07) * _step(canvas.y + 0.02, 0.10) * _step(0.80 - canvas.y, 0.06)
    flank *= _step(canvas.trunk - 0.9, 0.2)
    canvas.lay(0.72 * strength * flank, 186.0)
    canvas.mark("ascites", flank > 0.5)


def _tube(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A feeding tube, in ill and well alike."""
    end = 0.25 + 0.2 * rng.random()
    bend = 0.04 + 0.05 * rng.random()
    course = np.float32(bend) + np.float32(0.5) * np.maximum(canvas.y - np.float32(canvas.build.dome - 0.1), 0)
    line = _step(0.012 - np.abs(canvas.x - course), 0.014) * _step(canvas.build.dome + end - canvas.y, 0.02)
    canvas.lay(0.5 * line, 215.0)


def _mottle(x: Picture, y: Picture, rng: np.random.Generator) -> Picture:
    """Broad unevenness of the soft tissue: three plane waves."""
    waves = rng.normal(0, 1, (3, 4))
    total = np.zeros_like(x)
    for a, b, phase, height in waves:
        total += np.float32(3.5 * height) * np.cos(
            np.float32(4 * a) * x + np.float32(4 * b) * y + np.float32(3 * phase)
        )
    return total


def _around(mean: dict[str, float], spread: dict[str, float], rng: np.random.Generator) -> list[float]:
    deviations = np.clip(rng.standard_normal(len(mean)), -2, 2).tolist()
    return [mean[name] + spread[name] * e for name, e in zip(mean, deviations, strict=True)]


@cache
def _axis(size: int) -> NDArray[np.float32]:
    return ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)


def _step(distance: Picture, softness: float) -> Picture:
    """Rise smoothly from 0 to 1 around distance 0."""
    t = distance * np.float32(0.5 / softness) + np.float32(0.5)
    np.minimum(np.maximum(t, 0, out=t), 1, out=t)
    smooth = np.float32(3) - 2 * t
    smooth *= t
    smooth *= t
    return smooth
