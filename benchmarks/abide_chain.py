"""Does transfer help where all is real? A on some sites of ABIDE, B without labels on others, C on 33 of a third.

The subjects of C are drawn anew in every repeat, 33 of one site; A and B never see that site. What a stage
brings is the paired difference of cross-validated AUCs in the same subjects, averaged over draws, with the interval of
that mean over draws (Student's t): draws share subjects of the site, so that it is the draw that is averaged over, not
the site.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from tenfold.cohort.manifest import Cohort, write_cohort
from tenfold.config import merge_changes
from tenfold.study import Study

A_SITES = ("NYU", "UCLA_1", "PITT", "TRINITY", "MAX_MUN", "LEUVEN_1", "LEUVEN_2", "CALTECH")
B_SITES = ("UM_2", "OHSU", "OLIN", "SBL", "SDSU", "STANFORD", "CMU")
C_SITE, N = "UM_1", 33
REFERENCE = "no pre-training"


def main() -> None:
    """Run the chain on several draws and print the gain by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("abide", type=Path, help="folder of `tenfold import abide`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--study", type=Path, required=True, help="study file with stages a.csv and b.csv")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    whole = Cohort.read(args.abide)
    rng = np.random.default_rng(1024)
    aucs: dict[str, list[float]] = {}
    for draw in range(args.draws):
        folder = args.out / f"draw-{draw}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        parts = {
            "a.csv": np.flatnonzero(np.isin(whole.site, A_SITES)),
            "b.csv": np.flatnonzero(np.isin(whole.site, B_SITES)),
            "cohort.csv": np.sort(rng.choice(np.flatnonzero(whole.site == C_SITE), N, replace=False)),
        }
        shutil.copytree(args.abide / "connectomes", folder / "connectomes", copy_function=os.link)
        shutil.copy(args.abide / "regions.csv", folder)
        for name, rows in parts.items():
            table = whole.table.iloc[rows]
            write_cohort(table.to_dict("records"), whole.columns, folder / name)
        shutil.copy(args.study, folder / "study.toml")
        run = Study.read(folder, merge_changes([f"seed={1024 + draw}"])).run(out=folder / "run", threads=args.threads)
        for arm, metrics in run.evaluation["diagnosis"].items():
            aucs.setdefault(arm, []).append(metrics["auc"]["value"])
        print(draw, {arm: round(values[-1], 3) for arm, values in aucs.items()}, flush=True)
    (args.out / "aucs.json").write_text(json.dumps(aucs))
    for arm, values in aucs.items():
        gain = np.array(values) - np.array(aucs[REFERENCE])
        half = student.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
        low, high = gain.mean() - half, gain.mean() + half
        spread = np.std(values, ddof=1)
        print(f"{arm}: {np.mean(values):.3f} (SD {spread:.3f}), gain {gain.mean():+.3f} ({low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
