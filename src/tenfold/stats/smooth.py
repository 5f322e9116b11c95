"""Cleveland's lowess (1979) without robustness iterations, under many sets of weights at once.

It must not know what is smoothed. With weights of 1 it gives the figures of R's lowess(iter = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenfold.types import FloatArray

SPAN = 2 / 3
_GRAIN = 0.01


@dataclass(frozen=True)
class Lowess:
    """A local line at a few places along x, straight in between.

    The neighbourhoods are those of the unweighted data; weights act within them.

    Attributes:
        x: (n,) ascending.
        anchors: (k,) where a line is fitted.
        kernel: (k, n) tricube weights.
    """

    x: FloatArray
    anchors: FloatArray
    kernel: FloatArray

    @classmethod
    def prepare(cls, x: FloatArray) -> Lowess:
        """Choose the places and the neighbourhoods.

        Args:
            x: (n,) ascending.
        """
        anchors = x[_anchors(x, _GRAIN * (x[-1] - x[0]))]
        near = max(min(len(x), 2), int(SPAN * len(x) + 1e-7))
        distance = np.abs(x[None, :] - anchors[:, None])
        reach = np.partition(distance, near - 1, axis=1)[:, near - 1 : near]
        scaled = np.divide(distance, reach, out=np.zeros_like(distance), where=reach > 0)
        kernel = np.where(scaled <= 0.001, 1.0, np.maximum(0.0, 1 - scaled**3) ** 3)
        kernel[(scaled > 0.999) | ((reach == 0) & (distance > 0))] = 0.0
        return cls(x, anchors, kernel)

    def at_anchors(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return the fit at the anchors, (draws, k); NaN where a draw has no case in a neighbourhood.

        Args:
            y: (n,) what is smoothed.
            weights: (draws, n).
        """
        kernel, centred = self.kernel, self.x - self.x.mean()
        mass, sx, sxx, sy, sxy = (
            weights @ (kernel * column).T for column in (np.ones_like(y), centred, centred**2, y, centred * y)
        )
        there = mass > 0
        mean_x, mean_y, mean_xx, mean_xy = (
            np.divide(s, mass, out=np.full_like(s, np.nan), where=there) for s in (sx, sy, sxx, sxy)
        )
        spread = mean_xx - mean_x**2
        wide = spread > (0.001 * (self.x[-1] - self.x[0])) ** 2
        slope = np.divide(mean_xy - mean_x * mean_y, spread, out=np.zeros_like(spread), where=wide)
        return np.asarray(mean_y + slope * (self.anchors - self.x.mean() - mean_x))

    def between(self, fitted: FloatArray, x: FloatArray) -> FloatArray:
        """Return the fit at any x, (draws, len(x)), straight between the anchors.

        Args:
            fitted: (draws, k) what `at_anchors` returned.
            x: (m,) within the range of the data.
        """
        if len(self.anchors) == 1:
            return np.repeat(fitted, len(x), axis=1)
        left = np.clip(np.searchsorted(self.anchors, x, "right") - 1, 0, len(self.anchors) - 2)
        share = (x - self.anchors[left]) / (self.anchors[left + 1] - self.anchors[left])
        mix = np.zeros((len(self.anchors), len(x)))
        mix[left, np.arange(len(x))] = 1 - share
        mix[left + 1, np.arange(len(x))] = share
        return np.asarray(fitted @ mix)


def _anchors(x: FloatArray, grain: float) -> list[int]:
    """Indices of fitted points: each the last within a grain of the one before, as lowess does it."""
    chosen, last = [0], 0
    while x[last] < x[-1]:
        following = int(np.searchsorted(x, x[last], "right"))
        within = int(np.searchsorted(x, x[last] + grain, "right")) - 1
        last = max(following, within)
        chosen.append(last)
    return chosen
