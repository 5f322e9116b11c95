"""A stage that thaws only the last block of ResNet-34, 20 epochs: the plain loop against ours. Target: 5 times.

The plain loop sets requires_grad to False below and holds those norm layers in eval, as is competent; it decodes every
film and runs the whole network in every epoch. Ours is measured whole, decoding and frozen outputs of all variants
included. With `--plain-epochs` below `--epochs` the plain loop's time is scaled linearly and marked so.
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
from films import make_films
from tenfold.stats.roc import auc_interval
from tenfold.training.loop import Recipe, fit, predict_scores
from tenfold.training.sources import FrozenOutputs

TARGET = 5.0
BATCH = 16


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--films", type=int, default=300, help="fitted on; a fifth more judges, half as many are held out"
    )
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--plain-epochs", type=int, default=None, help="all if left out")
    options.add_argument("--variants", type=int, default=4)
    options.add_argument("--blob", type=float, default=22.0, help="grey levels of the shadow on films of class 1")
    options.add_argument("--threads", type=int, default=None, help="for both loops; all if left out")
    chosen = options.parse_args()
    threads = chosen.threads or plain.WORKERS
    plain_epochs = min(chosen.plain_epochs or chosen.epochs, chosen.epochs)
    n = chosen.films
    train, inner, test = np.split(np.arange(n + n // 5 + n // 2), [n, n + n // 5])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths, labels = make_films(folder / "films", len(train) + len(inner) + len(test), blob=chosen.blob)
        print(f"{n} films of 1320 x 970 fitted on, {len(inner)} judge, {len(test)} held out; {threads} threads")

        def loader(rows: np.ndarray, learn: bool) -> torch.utils.data.DataLoader:
            return plain.loader([paths[i] for i in rows], labels[rows], train=learn, batch=BATCH, keep=True)

        plain.prepare(threads)
        begun = time.perf_counter()
        model = plain.build("resnet34")
        frozen = plain.freeze_below(model, ("layer4.2", "fc"))
        plain.fit(model, loader(train, True), loader(inner, False), epochs=plain_epochs, frozen=frozen)
        plain_seconds = (time.perf_counter() - begun) * chosen.epochs / plain_epochs
        logits, _ = plain.predict(model, loader(test, False))
        plain_score = (logits[:, 1] - logits[:, 0]).double().numpy()

        ours.prepare(threads)
        begun = time.perf_counter()
        network = ours.build("resnet34")
        network.thaw(1)
        _, pictures = ours.open_store(folder / "store", paths[: len(train) + len(inner)])
        autocast = ours.precision(network, pictures)
        source = FrozenOutputs(network, pictures, folder / "frozen", variants=chosen.variants, autocast=autocast)
        fit(
            network,
            targets=["y"],
            train=ours.part(source, train, labels),
            inner=ours.part(source, inner, labels),
            recipe=Recipe(thaw=1, epochs=chosen.epochs, batch=BATCH),
            seed=1,
            autocast=autocast,
        )
        our_seconds = time.perf_counter() - begun
        _, held_out = ours.open_store(folder / "store", [paths[i] for i in test])
        scores = predict_scores(network, held_out, np.arange(len(test)), ["y"], autocast=autocast)["y"]

    truth = labels[test] == 1
    theirs, own = auc_interval(truth, plain_score), auc_interval(truth, scores[:, 1] - scores[:, 0])
    ratio = plain_seconds / our_seconds
    how = (
        "measured whole" if plain_epochs == chosen.epochs else f"{plain_epochs} epochs, time scaled to {chosen.epochs}"
    )
    print(f"\n{f'{chosen.epochs} epochs of':<52}{'seconds':>9}{'ratio':>8}  AUC of films held out (95 %)")
    print(f"{f'the plain loop ({how})':<52}{plain_seconds:>9.1f}{1:>8.2f}  {theirs}")
    print(f"{f'ours ({chosen.variants} variants, decoding included)':<52}{our_seconds:>9.1f}{ratio:>8.2f}  {own}")
    print(f"target {TARGET:.1f}: {'reached' if ratio >= TARGET else 'NOT reached'} ({ratio:.2f})")
    if plain_epochs < chosen.epochs:
        print("the plain loop's AUC is that of fewer epochs: not to be compared")
    else:
        inside = theirs.low <= own.value <= theirs.high
        print(f"AUC of ours within the interval of the plain loop's: {'yes' if inside else 'NO'}")


if __name__ == "__main__":
    main()
