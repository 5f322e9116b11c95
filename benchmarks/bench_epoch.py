"""One epoch of full training, ResNet-18 at 224 px: the plain loop against ours. Target: at least 2.0 times as fast.

The films are divided into halves and the loops take turns on them (plain, ours, ours, plain), so that a machine that
slows down or speeds up meanwhile favours neither. An epoch includes judging an inner part of one film in ten.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ours
import plain
from films import make_films
from tenfold.training.loop import Recipe, fit

TARGET = 2.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--films", type=int, default=1000)
    options.add_argument("--threads", type=int, default=None, help="for both loops; all if left out")
    chosen = options.parse_args()
    threads = chosen.threads or plain.WORKERS
    with tempfile.TemporaryDirectory() as place:
        n, aside = chosen.films, max(2, chosen.films // 10)
        paths, labels = make_films(Path(place) / "films", n + aside)
        weight = sum(p.stat().st_size for p in paths) / len(paths) / 1000
        print(f"{n} films of 1320 x 970, {weight:.0f} kB each; {aside} more judged; {threads} threads")
        print(f"plain: {plain.WORKERS} loader workers, float32, default memory format")

        ours.prepare(threads)
        begun = time.perf_counter()
        _, pictures = ours.open_store(Path(place) / "store", paths)
        cold = time.perf_counter() - begun
        network, model = ours.build("resnet18"), plain.build("resnet18")
        autocast = ours.precision(network, pictures)
        print(f"ours:  pictures from the store, {str(autocast).removeprefix('torch.')}, channels last")
        network.thaw("all")
        inner = np.arange(n, n + aside)
        halves = np.array_split(np.arange(n), 2)

        def run_plain(rows: np.ndarray) -> None:
            plain.prepare(threads)
            train = plain.loader([paths[i] for i in rows], labels[rows], train=True)
            judged = plain.loader([paths[i] for i in inner], labels[inner], train=False)
            plain.fit(model, train, judged, epochs=1)

        def run_ours(rows: np.ndarray) -> None:
            ours.prepare(threads)
            parts = {"train": ours.part(pictures, rows, labels), "inner": ours.part(pictures, inner, labels)}
            fit(network, targets=["y"], **parts, recipe=Recipe(epochs=1), seed=1, autocast=autocast)

        warm_up = np.arange(min(16, n))
        run_plain(warm_up)
        run_ours(warm_up)
        seconds = {"plain": 0.0, "ours": 0.0}
        turns: list[tuple[str, Callable[[np.ndarray], None], np.ndarray]] = [
            ("plain", run_plain, halves[0]),
            ("ours", run_ours, halves[0]),
            ("ours", run_ours, halves[1]),
            ("plain", run_plain, halves[1]),
        ]
        for name, run, rows in turns:
            begun = time.perf_counter()
            run(rows)
            seconds[name] += time.perf_counter() - begun

    first = cold + seconds["ours"]
    ratio = seconds["plain"] / seconds["ours"]
    print(f"\n{'epoch of':<34}{'seconds':>9}{'films/s':>9}{'ratio':>8}")
    for name, value in (
        ("the plain loop", seconds["plain"]),
        ("ours, first ever (decodes)", first),
        ("ours, every other", seconds["ours"]),
    ):
        print(f"{name:<34}{value:>9.1f}{n / value:>9.1f}{seconds['plain'] / value:>8.2f}")
    print(f"target {TARGET:.1f}: {'reached' if ratio >= TARGET else 'NOT reached'} ({ratio:.2f})")


if __name__ == "__main__":
    main()
