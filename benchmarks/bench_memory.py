"""Peak memory for 5,216 films at 224 px: store, kept features, one fold's head on MobileNetV2. Target: below 3 GiB.

The work is done twice, each time in a process of its own whose peak resident memory the system reports. The second
process must decode nothing. One film in sixteen has the full 1320 x 970, so that the peak of decoding is in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import ours
from films import make_films
from tenfold.training.loop import Recipe, fit
from tenfold.training.sources import FrozenOutputs

TARGET_GIB = 3.0
FULL_SIZE_EVERY = 16


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--films", type=int, default=5216)
    options.add_argument("--variants", type=int, default=2)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--threads", type=int, default=None)
    options.add_argument("--work", type=Path, default=None, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.work:
        work(chosen)
        return
    with tempfile.TemporaryDirectory() as place:
        folder, full = Path(place), -(-chosen.films // FULL_SIZE_EVERY)
        make_films(folder / "films" / "full", full)
        make_films(folder / "films" / "small", chosen.films - full, (224, 224), seed=2)
        print(f"{chosen.films} films at 224 px ({full} of them of 1320 x 970), {chosen.variants} variants kept")
        command = [sys.executable, __file__, *sys.argv[1:], "--work", place]
        passes = [json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _ in range(2)]
    print(f"\n{'process':<10}{'decoded':>9}{'seconds':>9}{'peak GiB':>10}")
    for name, found in zip(("first", "second"), passes, strict=True):
        print(f"{name:<10}{found['decoded']:>9}{found['seconds']:>9.1f}{found['gib']:>10.2f}")
    peak = max(found["gib"] for found in passes)
    print(f"target below {TARGET_GIB:.1f} GiB: {'reached' if peak < TARGET_GIB else 'NOT reached'} ({peak:.2f})")
    print(f"a second process decodes nothing: {'yes' if passes[1]['decoded'] == 0 else 'NO'}")


def work(chosen: argparse.Namespace) -> None:
    """Do what one fold with a frozen encoder does, and print what it took."""
    begun = time.perf_counter()
    ours.prepare(chosen.threads)
    paths = sorted((chosen.work / "films").rglob("*.jpg"))
    labels = np.arange(len(paths)) % 2
    store, pictures = ours.open_store(chosen.work / "store", paths)
    network = ours.build("mobilenetv2_100")
    network.thaw("head")
    autocast = ours.precision(network, pictures)
    source = FrozenOutputs(network, pictures, chosen.work / "frozen", variants=chosen.variants, autocast=autocast)
    train, inner = np.split(np.random.default_rng(1).permutation(len(paths)), [len(paths) * 17 // 20])
    fit(
        network,
        targets=["y"],
        train=ours.part(source, train, labels),
        inner=ours.part(source, inner, labels),
        recipe=Recipe(thaw="head", epochs=chosen.epochs),
        seed=1,
        autocast=autocast,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kib = peak / 1024 if sys.platform == "darwin" else peak
    found = {"decoded": store.decoded, "seconds": time.perf_counter() - begun, "gib": kib / 2**20}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
