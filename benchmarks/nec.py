"""Ten folds of ResNet-34 at 256 px on 408 newborns' films, last block thawed, 30 epochs. Target: 8 times.

The plain loop trains the ten folds one after the other, the whole network each time, and decodes every film in every
epoch: what a reader of the paper would write. Of it one fold is measured, and where `--plain-epochs` is below
`--epochs` only part of that; the rest is multiplied and marked so. Ours is measured with everything: decoding, the
outputs of the frozen part for all variants, shared by all folds, and as many folds as `--folds` says.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import ours
import plain
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import make_splits
from tenfold.simulate import SIMULATORS
from tenfold.stats.roc import auc_interval
from tenfold.training.loop import Recipe, fit, predict_scores
from tenfold.training.sources import FrozenOutputs

TARGET, FOLDS, SIZE, BATCH = 8.0, 10, 256, 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--patients", type=int, default=408)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--plain-epochs", type=int, default=None, help="all if left out")
    options.add_argument("--folds", type=int, default=FOLDS, help="how many of the ten folds are run, of ours")
    options.add_argument("--variants", type=int, default=4)
    options.add_argument("--network", default="resnet34")
    options.add_argument("--threads", type=int, default=None, help="for both loops; all if left out")
    chosen = options.parse_args()
    threads = chosen.threads or plain.WORKERS
    plain_epochs = min(chosen.plain_epochs or chosen.epochs, chosen.epochs)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        SIMULATORS["nec"](
            folder / "newborns", patients=chosen.patients, seed=1, size=SIZE, external=0, source=0, missing="none"
        )
        cohort = Cohort.read(folder / "newborns")
        paths, values = cohort.files("film"), cohort.labels("diagnosis")
        labels = (values == "NEC").astype(int)
        _, splits = make_splits(cohort, values, folds=FOLDS, inner=0.15, seed=1)
        position = {case: i for i, case in enumerate(cohort.case.tolist())}
        parts = [[np.array([position[c] for c in p]) for p in (s.train, s.inner, s.test)] for s in splits]
        print(f"{len(paths)} films of {SIZE} x {SIZE}, {len(parts[0][0])} fitted on in a fold; {threads} threads")

        plain.prepare(threads)
        train, inner, test = parts[0]

        def loader(rows: np.ndarray, learn: bool) -> torch.utils.data.DataLoader:
            films = [paths[i] for i in rows]
            return plain.loader(films, labels[rows], train=learn, batch=BATCH, keep=True, size=SIZE)

        begun = time.perf_counter()
        model = plain.build(chosen.network)
        plain.fit(model, loader(train, True), loader(inner, False), epochs=plain_epochs)
        measured = time.perf_counter() - begun
        plain_seconds = measured * chosen.epochs / plain_epochs * FOLDS
        logits, _ = plain.predict(model, loader(test, False))
        theirs = auc_interval(labels[test] == 1, (logits[:, 1] - logits[:, 0]).double().numpy())

        ours.prepare(threads)
        begun = time.perf_counter()
        network = ours.build(chosen.network)
        network.thaw(1)
        start = {name: t.clone() for name, t in network.state_dict().items()}
        _, pictures = ours.open_store(folder / "store", paths, SIZE)
        autocast = ours.precision(network, pictures)
        source = FrozenOutputs(network, pictures, folder / "frozen", variants=chosen.variants, autocast=autocast)
        for k in range(chosen.variants):
            source.batch(np.arange(len(paths)), epoch=k)
        shared = time.perf_counter() - begun
        begun = time.perf_counter()
        scores = np.full(len(paths), np.nan)
        for train, inner, test in parts[: chosen.folds]:
            network.load_state_dict(start)
            fit(
                network,
                targets=["y"],
                train=ours.part(source, train, labels),
                inner=ours.part(source, inner, labels),
                recipe=Recipe(thaw=1, epochs=chosen.epochs, batch=BATCH),
                seed=1,
                autocast=autocast,
            )
            found = predict_scores(network, source, test, ["y"], autocast=autocast)["y"]
            scores[test] = found[:, 1] - found[:, 0]
        our_seconds = shared + (time.perf_counter() - begun) * FOLDS / chosen.folds

    first = parts[0][2]
    own = auc_interval(labels[first] == 1, scores[first])
    ratio = plain_seconds / our_seconds
    how = f"{plain_epochs} of {chosen.epochs} epochs of one fold: {measured:.1f} s, multiplied"
    print(f"\n{f'{FOLDS} folds of {chosen.epochs} epochs':<72}{'seconds':>9}{'ratio':>8}")
    print(f"{f'the plain loop ({how})':<72}{plain_seconds:>9.1f}{1:>8.2f}")
    done = f"{chosen.folds} folds" + ("" if chosen.folds == FOLDS else ", multiplied")
    print(f"{f'ours ({shared:.1f} s shared by all folds; {done})':<72}{our_seconds:>9.1f}{ratio:>8.2f}")
    print(f"target {TARGET:.1f}: {'reached' if ratio >= TARGET else 'NOT reached'} ({ratio:.2f})")
    if plain_epochs == chosen.epochs:
        print(f"AUC of the first fold's test films: plain {theirs}, ours {own}")
        print(
            f"ours within the interval of the plain loop's: {'yes' if theirs.low <= own.value <= theirs.high else 'NO'}"
        )
    else:
        print("the plain loop's AUC is that of fewer epochs: not to be compared")


if __name__ == "__main__":
    main()
