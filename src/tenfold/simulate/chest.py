"""Drawing of schematic chest films: the anatomy, and the shadows that lie on it.

It must not know any diagnosis, how severe anything is, or where the films are kept.

The patient's frame is [-1, 1] x [-1, 1], x to the right of the picture (the patient's left) and y downwards; grey
levels are 0 to 255, bright being dense. Every shadow is returned at an arbitrary height: the caller scales it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.floating[Any]]

LOBES: dict[str, tuple[int, float, float]] = {
    "right upper": (-1, 0.50, 0.34),
    "right middle": (-1, 0.45, 0.64),
    "right lower": (-1, 0.62, 0.86),
    "left upper": (1, 0.55, 0.36),
    "left lower": (1, 0.72, 0.82),
}
"""Side, and the lobe's centre as fractions of the lung's width (from medial) and length (from the top)."""

_HILUM = (0.19, -0.06)
_BANK = 24
_GROWTH_STEPS = 3
_LOBAR_ENERGY = 0.075
"""Sum of squares of a lobar shadow of height 1, in areas of the patient's frame."""


@dataclass(frozen=True)
class Body:
    """What belongs to a person: lengths in the patient's frame, grey levels for contrasts and tissues.

    Flank, abdomen and bowel gas vary so much that a film's mean brightness says next to nothing of the lungs.
    `bowel_gas` is the height, in SD, above which a random field is gas: more of it means less gas.
    """

    width: float = 0.72
    top: float = -0.80
    dome: float = 0.42
    heart_width: float = 0.33
    heart_height: float = 0.31
    heart_x: float = 0.11
    mediastinum: float = 0.11
    rib_spacing: float = 0.165
    rib_slope: float = 0.35
    rib_contrast: float = 9.0
    rib_phase: float = 0.0
    lung: float = 68.0
    flank: float = 104.0
    abdomen: float = 170.0
    bowel_gas: float = 0.55


@dataclass(frozen=True)
class Pose:
    """What belongs to an exposure: radians, lengths in the picture's frame, grey levels, a factor."""

    rotation: float = 0.0
    scale: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    exposure: float = 0.0
    contrast: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """A film without any shadow, and the fields that shadows are drawn with, all (size, size).

    Attributes:
        body: Who it is.
        grey: Grey levels.
        aerated: 1 where air-filled lung is seen, 0 elsewhere, soft edges.
        projected: 1 wherever lung lies, also behind the heart and below the domes.
        x: The patient's frame, rightwards in the picture.
        y: The patient's frame, downwards.
        depth: Distance inward from the rib cage; negative outside.
        above: Distance above the dome of the diaphragm; negative below.
    """

    body: Body
    grey: Picture
    aerated: Picture
    projected: Picture
    x: Picture
    y: Picture
    depth: Picture
    above: Picture

    @property
    def seen(self) -> Picture:
        """How far a shadow shows through: fully in aerated lung, faintly behind heart and diaphragm."""
        return 0.75 * self.aerated + 0.25 * self.projected


def vary_body(mean: Body, rng: np.random.Generator) -> Body:
    """Draw a person around a mean one; deviations are cut at 2 SD so that no film is absurd."""
    spread = Body(0.025, 0.025, 0.03, 0.018, 0.018, 0.015, 0.010, 0.010, 0.06, 1.5, 0.0, 3.0, 5.0, 6.0, 0.3)
    drawn = {
        name: getattr(mean, name) + getattr(spread, name) * float(e)
        for name, e in zip(vars(mean), np.clip(rng.standard_normal(len(vars(mean))), -2, 2), strict=True)
    }
    return Body(**{**drawn, "rib_phase": float(rng.uniform())})


def vary_pose(mean: Pose, rng: np.random.Generator) -> Pose:
    """Draw one exposure around a mean one; deviations are cut at 2 SD."""
    spread = Pose(0.05, 0.04, 0.04, 0.04, 5.0, 0.03)
    return Pose(
        *(
            getattr(mean, name) + getattr(spread, name) * float(e)
            for name, e in zip(vars(mean), np.clip(rng.standard_normal(6), -2, 2), strict=True)
        )
    )


def draw_anatomy(body: Body, pose: Pose, size: int, rng: np.random.Generator) -> Anatomy:
    """Draw a film of a person without any shadow.

    Args:
        body: The person.
        pose: The exposure.
        size: Pixels a side.
        rng: For the vessels and the bowel gas.
    """
    x, y = _patient_frame(pose, size)
    side = np.abs(x)
    length = np.clip((y - body.top) / (body.dome + 0.2 - body.top), 0, 1)
    wall = _wall(body, length)
    depth = wall - side
    dome = body.dome + 0.03 * np.sign(x) + 0.9 * (side - 0.30) ** 2
    above = dome - y
    apex = y - body.top - 1.6 * np.clip(side - 0.20, 0, None) ** 2
    projected = (
        _step(depth, 0.04)
        * _step(side - body.mediastinum * (0.75 + 0.4 * length), 0.05)
        * _step(apex, 0.07)
        * _step(above + 0.13, 0.04)
    )
    heart = _heart(body, x, y)
    domes = _step(-above, 0.03)
    aerated = projected * (1 - heart) * (1 - domes)

    trunk = _step(0.95 - 0.62 * np.clip((-0.50 - y) / 0.50, 0, 1) ** 2 - side, 0.06)
    cage = _step(depth + 0.06, 0.05) * _step(y - body.top + 0.10, 0.08)
    grey = 18 + trunk * (body.flank - 34 * np.clip(side - 0.3, 0, 1))
    grey = grey + 26 * np.exp(-((side / 0.10) ** 2)) * trunk + 14 * np.exp(-((side / 0.22) ** 2)) * cage
    grey = grey + (body.lung - grey) * projected * (0.90 + 0.10 * np.clip(depth / 0.25, 0, 1))
    grey = grey + (158 - grey) * heart * cage * 0.92
    grey = grey + (body.abdomen - 18 * side - grey) * domes * trunk * 0.93
    grey = grey - 44 * _bowel_gas(body, size, rng) * _step(-above - 0.10, 0.06) * trunk
    ribs = _ribs(body, x, y) * cage * (1 - 0.75 * domes) * (1 - 0.6 * heart)
    vessels = _vessels(x, y, size, rng)
    trachea = np.exp(-((x / 0.045) ** 2)) * _step(-0.22 - y, 0.1)
    grey = grey + body.rib_contrast * ribs + vessels * aerated - 20 * trachea * trunk
    grey = grey + 20 * _clavicles(body, x, y) * trunk
    grey = 110 + pose.contrast * (grey - 110) + pose.exposure
    fields = (grey, aerated, projected, x, y, depth, above)
    return Anatomy(body, *(f.astype(np.float32) for f in fields))


def focal(anatomy: Anatomy, rng: np.random.Generator) -> tuple[Picture, tuple[str, ...]]:
    """Draw lobar consolidation: one or two soft-edged shadows, each in a lobe.

    Returns:
        The shadow (size, size), and the lobes it lies in.
    """
    count = 1 + int(rng.random() < 0.35)
    names = tuple(str(n) for n in rng.choice(list(LOBES), size=count, replace=False))
    return np.sum([_lobar(anatomy, name, 1 / count, rng) for name in names], axis=0), tuple(sorted(names))


def diffuse(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw bilateral interstitial change: a net of fine lines in a peribronchial haze, (size, size)."""
    near = _near_hila(anatomy, 0.42)
    net = np.exp(-((_field(len(anatomy.grey), 2.4, rng) / 0.45) ** 2))
    return (net * (0.35 + 0.65 * near) + 0.45 * near) * anatomy.seen


def atelectasis(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw a plate of collapsed lung: a slanting band above one dome."""
    s, height = _side(rng), rng.uniform(0.10, 0.24)
    tilt = 0.35 * (anatomy.x * s - 0.35)
    band = np.exp(-(((anatomy.above - height - tilt) / 0.035) ** 2))
    return band * _half(anatomy, s) * anatomy.seen


def effusion(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw fluid: one costophrenic angle filled up to a meniscus."""
    s = _side(rng)
    level = rng.uniform(0.10, 0.28) + 0.5 * np.clip(0.16 - anatomy.depth, 0, None)
    return _step(level - anatomy.above, 0.06) * _half(anatomy, s) * anatomy.aerated


def edema(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw lung oedema: a smooth bat's wing about both hila."""
    return _near_hila(anatomy, rng.uniform(0.26, 0.34)) * anatomy.seen


def nodule(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw a small round shadow."""
    return _disc(anatomy, rng.uniform(0.035, 0.05), rng)


def mass(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw a large round shadow with a sharp edge."""
    return _disc(anatomy, rng.uniform(0.10, 0.14), rng)


def pneumothorax(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw free air: a lateral and apical crescent that is darker, behind a thin pleural line."""
    s, width = _side(rng), rng.uniform(0.10, 0.18)
    edge = anatomy.depth - width * np.clip(1.1 - 0.8 * (anatomy.y + 0.5), 0.2, 1.4)
    air = _step(-edge, 0.03) * anatomy.aerated
    line = np.exp(-((edge / 0.015) ** 2)) * anatomy.aerated
    return (line - 0.8 * air) * _half(anatomy, s)


def fibrosis(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw scarring: a coarse net of lines at both bases."""
    net = np.exp(-((_field(len(anatomy.grey), 3.6, rng) / 0.30) ** 2))
    return net * np.exp(-np.clip(anatomy.above, 0, None) / 0.25) * anatomy.seen


def pleural_thickening(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw a bright rim along the wall of one lung."""
    rim = np.exp(-((anatomy.depth / 0.045) ** 2)) * _step(anatomy.depth, 0.02)
    return rim * _half(anatomy, _side(rng)) * _step(anatomy.above, 0.1)


def hernia(anatomy: Anatomy, rng: np.random.Generator) -> Picture:
    """Draw a hiatus hernia: a ring with air in it behind the heart."""
    x, y = anatomy.x - rng.uniform(0.0, 0.10), anatomy.y - anatomy.body.dome + rng.uniform(0.08, 0.14)
    r = np.hypot(x, y)
    return np.exp(-(((r - 0.11) / 0.03) ** 2)) - 0.9 * np.exp(-((r / 0.08) ** 2))


def _patient_frame(pose: Pose, size: int) -> tuple[Picture, Picture]:
    """Say where in the patient each pixel lies."""
    across, down = _grid(size)
    x, y = across - pose.shift_x, down - pose.shift_y
    c, s = math.cos(pose.rotation) / pose.scale, math.sin(pose.rotation) / pose.scale
    return c * x + s * y, c * y - s * x


@cache
def _grid(size: int) -> tuple[Picture, Picture]:
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    across, down = np.meshgrid(axis, axis)
    return across, down


def _step(distance: Picture, softness: float) -> Picture:
    """Rise smoothly from 0 to 1 around distance 0; cheaper than a logistic curve."""
    t = np.clip(distance / (2 * softness) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _wall(body: Body, length: Picture) -> Picture:
    """Half the width of the rib cage, bell-shaped over the lung's length (0 top, 1 bottom)."""
    return body.width * (1 - 0.62 * (1 - length) ** 2 * np.sqrt(1 - length))


def _heart(body: Body, x: Picture, y: Picture) -> Picture:
    """An egg that leans to the patient's left, with the great vessels above it."""
    u, v = x - body.heart_x, y - (body.dome - 0.20)
    u, v = u - 0.35 * v, v + 0.25 * u
    egg = 1 - np.sqrt((u / body.heart_width) ** 2 + (v / body.heart_height) ** 2)
    stem = body.mediastinum * (1.0 + 0.5 * np.clip((y + 0.5) / 0.5, -0.2, 1))
    vessels = _step(stem - np.abs(x - 0.02), 0.06)
    return np.maximum(_step(egg * 0.28, 0.03), vessels)


def _ribs(body: Body, x: Picture, y: Picture) -> Picture:
    """Posterior ribs: evenly spaced bands that rise from the spine and fall towards the wall."""
    side = np.abs(x)
    course = y - body.rib_slope * (side - 0.18) * (2.2 * side - 0.2)
    wave = np.cos(2 * np.pi * (course / body.rib_spacing + body.rib_phase))
    return _step(wave - 0.15, 0.45) * _step(side - 0.07, 0.04)


def _clavicles(body: Body, x: Picture, y: Picture) -> Picture:
    course = y - body.top - 0.16 + 0.30 * (np.abs(x) - 0.12)
    return np.exp(-((course / 0.028) ** 2)) * _step(np.abs(x) - 0.07, 0.03)


def _vessels(x: Picture, y: Picture, size: int, rng: np.random.Generator) -> Picture:
    """Hila, and vessels that fade towards the wall: a fine net in everybody."""
    away = np.hypot(np.abs(x) - _HILUM[0], 0.8 * (y - _HILUM[1]))
    net = np.exp(-((_field(size, 2.8, rng) / 0.35) ** 2))
    return 5 * net * np.exp(-away / 0.30) + 11 * np.exp(-((away / 0.11) ** 2))


def _bowel_gas(body: Body, size: int, rng: np.random.Generator) -> Picture:
    """Gas below the domes, everybody's own: it makes films of two people as unlike as real ones are."""
    return _step(_field(size, 6.0, rng) - body.bowel_gas, 0.35)


def _near_hila(anatomy: Anatomy, reach: float) -> Picture:
    away = np.hypot(np.abs(anatomy.x) - _HILUM[0] - 0.06, 0.75 * (anatomy.y - _HILUM[1] - 0.06))
    return np.exp(-((away / reach) ** 2))


def _lobe_centre(body: Body, name: str, rng: np.random.Generator) -> tuple[float, float]:
    side, across, along = LOBES[name]
    along = along + rng.uniform(-0.04, 0.04)
    across = across + rng.uniform(-0.08, 0.08)
    y = body.top + along * (body.dome - body.top)
    length = np.float32((y - body.top) / (body.dome + 0.2 - body.top))
    wall = float(_wall(body, np.asarray(length)))
    return side * (body.mediastinum + across * (wall - body.mediastinum)), y


def _lobar(anatomy: Anatomy, name: str, share: float, rng: np.random.Generator) -> Picture:
    """One lobe's shadow, grown until as much of it is seen as asked: else the half hidden ones would be glaring."""
    x, y = _lobe_centre(anatomy.body, name, rng)
    stretch = rng.uniform(0.9, 1.12)
    ragged = np.clip(1 + 0.22 * _field(len(anatomy.grey), 9.0, rng), 0.2, None)
    squared = (((anatomy.x - x) / stretch) ** 2 + ((anatomy.y - y) * stretch) ** 2) * ragged
    cubed = squared * np.sqrt(squared)
    radius, seen = 0.21 * math.sqrt(share), anatomy.seen
    for _ in range(_GROWTH_STEPS):
        shadow = np.exp(-cubed / radius**3) * seen
        energy = float(np.sum(shadow**2)) * (2 / len(seen)) ** 2
        radius *= min(max(math.sqrt(_LOBAR_ENERGY * share / energy), 0.8), 1.25)
    return shadow


def _disc(anatomy: Anatomy, radius: float, rng: np.random.Generator) -> Picture:
    x, y = _lobe_centre(anatomy.body, str(rng.choice(list(LOBES))), rng)
    return _step(radius - np.hypot(anatomy.x - x, anatomy.y - y), 0.02) * anatomy.seen


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _half(anatomy: Anatomy, side: int) -> Picture:
    return (anatomy.x * side > 0).astype(np.float32)


def _field(size: int, grain: float, rng: np.random.Generator) -> Picture:
    """A smooth random field of mean 0 and SD 1; `grain` is its correlation length in 1/160 of the side."""
    index, down, across = rng.integers(_BANK), rng.integers(size), rng.integers(size)
    return np.roll(_bank(size, grain)[index], (down, across), axis=(0, 1))


@cache
def _bank(size: int, grain: float) -> NDArray[np.float32]:
    """Periodic fields to be rolled: filtering one anew for each film would take most of the time."""
    white = np.random.default_rng(int(grain * 1000)).standard_normal((_BANK, size, size))
    smooth = ndimage.gaussian_filter(white, (0, grain * size / 160, grain * size / 160), mode="wrap")
    return (smooth / smooth.std(axis=(1, 2), keepdims=True)).astype(np.float32)
