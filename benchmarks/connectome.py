"""6 arms x 20 repeats x 5 folds of the 4,005-edge network on 33 infants: stacked against one by one. Target: 50 times.

One by one is what a reader of the paper would write: torch.nn with 4,005 inputs, torch.optim.SGD, one training after
the other. Of it ten are measured, from every arm, and multiplied; ours is measured whole, predictions included, and the
predictions of the ten are compared. Then ten folds of ABIDE's 709 subjects (numbers drawn at random where the data is
not there), target 5 times, of which one plain training is measured. Both loops have the same number of threads.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tenfold.training.device import seed_for
from tenfold.training.members import PAPER, Member, Prepared, SpanRecipe, Target, initial_state
from tenfold.training.span import batch_slices, fit_members, orders, predict_members

TARGET, TARGET_ABIDE, TARGET_GIB, TOLERANCE = 50.0, 5.0, 6.0, 1e-4
EDGES, CLINICAL = 4005, 50
OUTCOMES = (Target("cognitive"), Target("language"), Target("motor"))


@dataclass(frozen=True)
class Work:
    """Trainings, and whom each predicts afterwards."""

    members: list[Member]
    prepared: list[Prepared]
    targets: tuple[Target, ...]
    test: list[np.ndarray]


class Plain(nn.Module):
    """The network of a recipe with batch norm, as torch.nn has it."""

    def __init__(self, recipe: SpanRecipe, edges: int, clinical: int, targets: Sequence[Target]) -> None:
        super().__init__()
        widths = (edges, *recipe.edges) if recipe.edges else ()
        self.edges = nn.ModuleList(layer(a, b) for a, b in zip(widths, recipe.edges, strict=False))
        self.clinical = nn.ModuleList([layer(clinical, recipe.clinical)] if recipe.clinical else [])
        self.fusion = nn.ModuleList([layer((widths or (0,))[-1] + recipe.clinical, recipe.fusion)])
        self.heads = nn.ModuleDict({t.name: layer(recipe.fusion, t.classes) for t in targets})

    def forward(self, edges: Tensor, clinical: Tensor | None) -> list[Tensor]:
        parts = []
        for branch, x in ((self.edges, edges), (self.clinical, clinical)):
            if len(branch):
                for one in branch:
                    x = torch.relu(one.norm(one(x)))
                parts.append(x)
        x = torch.relu(self.fusion[0].norm(self.fusion[0](torch.cat(parts, 1))))
        return [head.norm(head(x)) for head in self.heads.values()]


def layer(inputs: int, width: int) -> nn.Linear:
    """Return a dense layer that carries the norm after it."""
    dense = nn.Linear(inputs, width, bias=False)
    dense.norm = nn.BatchNorm1d(width)
    return dense


def plain_training(member: Member, prepared: Prepared, targets: Sequence[Target], test: np.ndarray) -> list[np.ndarray]:
    """Train one member, keep its best epoch, and return its logits of the test rows."""
    recipe, learns = member.recipe, [k for k, t in enumerate(targets) if t.name in (member.targets or [t.name])]
    clinical = prepared.clinical
    network = Plain(recipe, prepared.edges.shape[1], 0 if clinical is None else clinical.shape[1], targets)
    network.load_state_dict(initial_state(member, prepared, targets), strict=False)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.rate, momentum=recipe.momentum, nesterov=recipe.nesterov
    )
    labels, inner_labels = (torch.from_numpy(y).long() for y in (member.train_labels, member.inner_labels))

    def said(rows: np.ndarray) -> list[Tensor]:
        return network(prepared.edges[rows], None if clinical is None else clinical[rows])

    def loss(rows: np.ndarray, truth: Tensor) -> Tensor:
        logits = said(rows)
        return torch.stack([functional.cross_entropy(logits[k], truth[:, k]) for k in learns]).mean()

    lowest, best = float("inf"), network.state_dict()
    for order in orders(member.seed, recipe.epochs, len(member.train)):
        network.train()
        for part in batch_slices(len(order), recipe.batch):
            optimizer.zero_grad()
            loss(member.train[order[part]], labels[order[part]]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            judged = float(loss(member.inner, inner_labels))
            if judged < lowest:
                lowest, best = judged, {name: t.clone() for name, t in network.state_dict().items()}
    network.load_state_dict(best)
    with torch.no_grad():
        return [said(test)[k].double().numpy() for k in learns]


def encoder(seed: int) -> dict[str, Tensor]:
    """Return what an earlier stage would hand on; for the time it takes, random weights will do."""
    subject = Prepared(torch.zeros(1, EDGES))
    nobody = np.empty(0, np.int64), np.empty((0, 3))
    member = Member("earlier stage", replace(PAPER, clinical=0), seed, *nobody, *nobody)
    state = initial_state(member, subject, OUTCOMES)
    return {name: tensor for name, tensor in state.items() if name.startswith("edges.")}


def divided(rng: np.random.Generator, n: int, folds: int, inner: int) -> list[tuple[np.ndarray, ...]]:
    """Return (train, inner, test) rows of each fold."""
    parts = np.array_split(rng.permutation(n), folds)
    found = []
    for k, test in enumerate(parts):
        rest = np.concatenate(parts[:k] + parts[k + 1 :])
        found.append((rest[inner:], rest[:inner], test))
    return found


def standardised(tables: Sequence[Tensor | None], rows: np.ndarray) -> Prepared:
    """Prepare as a fold does: by its training rows alone."""
    found = []
    for table in tables:
        if table is None:
            found.append(None)
            continue
        spread = table[rows].std(0)
        found.append((table - table[rows].mean(0)) / torch.where(spread > 0, spread, 1.0))
    return Prepared(*found)


def infants(repeats: int, folds: int, epochs: int, subjects: int) -> dict[str, Work]:
    """Return the six arms; the same repeat and fold has the same rows, preparation and seed in each."""
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(subjects, 8))
    edges = torch.from_numpy(latent @ rng.normal(size=(8, EDGES)) + 2 * rng.normal(size=(subjects, EDGES))).float()
    clinical = torch.from_numpy(rng.normal(size=(subjects, CLINICAL))).float()
    scores = latent[:, :3] + clinical[:, :3].numpy() + rng.normal(size=(subjects, 3))
    labels = (scores > np.median(scores, 0)).astype(float)
    recipe, adults, neonates = replace(PAPER, epochs=epochs), encoder(1), encoder(2)
    arms: dict[str, dict] = {
        "three stages": {"start": neonates},
        "single task": {"start": neonates, "targets": ("cognitive",)},
        "no pre-training": {},
        "adults only": {"start": adults},
        "connectome only": {"start": neonates, "recipe": replace(recipe, clinical=0)},
        "clinical only": {"recipe": replace(recipe, edges=())},
    }
    divisions = [part for _ in range(repeats) for part in divided(rng, subjects, folds, inner=5)]
    prepared = [standardised((edges, clinical), train) for train, _, _ in divisions]
    found = {}
    for arm, changes in arms.items():
        members = [
            Member(
                f"{arm}, division {k}", recipe, seed_for(1, k), train, labels[train], inner, labels[inner], prepared=k
            )
            for k, (train, inner, _) in enumerate(divisions)
        ]
        test = [part[2] for part in divisions]
        found[arm] = Work([replace(m, **changes) for m in members], prepared, OUTCOMES, test)
    return found


def adults(folder: Path, epochs: int, batch: int, subjects: int) -> tuple[Work, str]:
    """Return ten folds of a stage on adults, and what the numbers are."""
    rng = np.random.default_rng(2)
    if (folder / "connectomes.npz").is_file():
        with np.load(folder / "connectomes.npz") as stored:
            table, what = stored["edges"], "ABIDE"
    else:
        table, what = rng.normal(size=(subjects, EDGES)), "drawn at random"
    edges = torch.from_numpy(np.asarray(table[:subjects], np.float32)).arctanh().nan_to_num(0.0, 0.0, 0.0)
    labels = rng.integers(0, 2, (len(edges), 1)).astype(float)
    divisions = divided(rng, len(edges), 10, inner=len(edges) // 10)
    prepared = [standardised((edges,), train) for train, _, _ in divisions]
    recipe = replace(PAPER, clinical=0, epochs=epochs, batch=batch)
    members = [
        Member(f"adults, fold {k}", recipe, k, train, labels[train], inner, labels[inner], prepared=k)
        for k, (train, inner, _) in enumerate(divisions)
    ]
    return Work(
        members, prepared, (Target("autism"),), [part[2] for part in divisions]
    ), f"{what}, {edges.shape[1]} edges"


def ours(work: Work) -> list[dict[str, np.ndarray]]:
    trained = fit_members(work.members, work.prepared, work.targets)
    return predict_members(trained, work.prepared, work.test)


def compare(name: str, works: Sequence[Work], picks: Sequence[Sequence[int]], target: float) -> None:
    """Measure both and print the ratio, and how far their predictions are apart."""
    joined = Work(
        [m for work in works for m in work.members],
        works[0].prepared,
        works[0].targets,
        [rows for work in works for rows in work.test],
    )
    begun = time.perf_counter()
    said = ours(joined)
    our_seconds = time.perf_counter() - begun
    plain_seconds, apart, measured, offset = 0.0, [], 0, 0
    for work, chosen in zip(works, picks, strict=True):
        begun = time.perf_counter()
        for i in chosen:
            member = work.members[i]
            found = plain_training(member, work.prepared[member.prepared], work.targets, work.test[i])
            both = zip(found, said[offset + i].values(), strict=True)
            apart.append(max(float(np.abs(a - b).max()) for a, b in both))
        plain_seconds += (time.perf_counter() - begun) * len(work.members) / len(chosen)
        measured, offset = measured + len(chosen), offset + len(work.members)
    ratio, total = plain_seconds / our_seconds, len(joined.members)
    print(f"\n{name:<64}{'seconds':>9}{'each':>9}{'ratio':>8}")
    for label, seconds in (
        (f"one by one ({measured} of {total} measured, multiplied)", plain_seconds),
        (f"stacked, in the span of the subjects (all {total})", our_seconds),
    ):
        print(f"{label:<64}{seconds:>9.1f}{seconds / total:>9.4f}{plain_seconds / seconds:>8.1f}")
    print(f"target {target:.0f}: {'reached' if ratio >= target else 'NOT reached'} ({ratio:.1f})")
    within = sum(a <= TOLERANCE for a in apart)
    print(
        f"logits apart by at most {max(apart):.1e} (median {np.median(apart):.1e}); {within} of {measured} within 1e-4"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=20)
    options.add_argument("--folds", type=int, default=5)
    options.add_argument("--epochs", type=int, default=50)
    options.add_argument("--infants", type=int, default=33)
    options.add_argument("--plain", type=int, default=10, help="how many one by one are measured, over all arms")
    options.add_argument("--adults", type=int, default=709, help="0 leaves them out")
    options.add_argument("--adult-epochs", type=int, default=50)
    options.add_argument("--adult-batch", type=int, default=32)
    options.add_argument("--abide", type=Path, default=None, help="folder of connectomes.npz")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="for both")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"{chosen.threads} thread(s) of {os.cpu_count()} cores")

    arms = infants(chosen.repeats, chosen.folds, chosen.epochs, chosen.infants)
    # one of each kind first, so that neither is charged for the first use of a library
    small = infants(1, 2, 2, chosen.infants)["three stages"]
    ours(small)
    plain_training(small.members[0], small.prepared[0], small.targets, small.test[0])
    each = [len(part) for part in np.array_split(np.arange(max(chosen.plain, len(arms))), len(arms))]
    last = chosen.repeats * chosen.folds - 1
    picks = [np.linspace(0, last, count).astype(int).tolist() for count in each]
    compare(
        f"{len(arms)} arms x {chosen.repeats} x {chosen.folds}, {chosen.infants} infants, {chosen.epochs} epochs",
        list(arms.values()),
        picks,
        TARGET,
    )
    if chosen.adults:
        shared = Path(os.environ.get("TENFOLD_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
        work, what = adults(chosen.abide or shared / "abide", chosen.adult_epochs, chosen.adult_batch, chosen.adults)
        name = f"10 folds, {work.prepared[0].subjects} adults ({what}), {chosen.adult_epochs} epochs"
        compare(name, [work], [[0]], TARGET_ABIDE)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    reached = "reached" if peak < TARGET_GIB else "NOT reached"
    print(f"\npeak memory {peak:.2f} GiB; target below {TARGET_GIB:.0f}: {reached}")


if __name__ == "__main__":
    main()
