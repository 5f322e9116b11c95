"""The reader study in tables and sentences: machine against readers, each reader, agreement, aided and unaided.

It must not know HTML, nor compute a test.
"""

from __future__ import annotations

from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import arm_name, count, interval, metric_label, number, p_value, with_interval
from tenfold.types import Estimate

_INFERENCES = {
    "random_readers_random_cases": "other readers, other patients",
    "random_readers_fixed_cases": "other readers, these patients",
    "fixed_readers_random_cases": "these readers, other patients",
    "fixed_readers_fixed_cases": "these readers, these patients",
}


def places(run: Run) -> dict[str, Run]:
    """Return every folder of the run in which people rated cases: its name ("" for the run itself) and content."""
    own = {"": run} if run.readers else {}
    return own | {name: other for name, other in run.externals.items() if other.readers}


def ways(run: Run) -> list[dict[str, Any]]:
    """Return the ways of reading (aided and unaided, or one without a name)."""
    return list(run.readers.get("modalities") or [])


def _named(way: dict[str, Any]) -> str:
    return f" ({way['modality']})" if way.get("modality") else ""


def estimate(held: Any) -> Estimate | None:
    """Return an estimate of readers.json; None where it holds no number."""
    return Estimate.from_dict(held) if readable(held) else None


def sentences(run: Run) -> list[str]:
    """Say who read what, and the machine's AUC beside theirs."""
    cases = run.readers.get("cases") or {}
    said = [
        f"{count(len(run.readers.get('readers') or []), 'reader')} rated {count(cases.get('rated'), 'case')}; "
        f"{count(cases.get('complete'), 'case')} of {count(cases.get('patients'), 'patient')} "
        f"({cases.get('positives', '?')} {run.positive or 'positive'}) were rated by all and are compared."
    ]
    for way in ways(run):
        test = ((way.get("against_machine") or {}).get("auc") or {}).get("random_readers")
        test = test or ((way.get("against_machine") or {}).get("auc") or {}).get("fixed_readers") or {}
        gap, mean, machine = (estimate(test.get(k)) for k in ("difference", "readers_mean", "machine"))
        if gap is None or mean is None or machine is None:
            continue
        held = "does not exclude" if gap.low <= 0 <= gap.high else "excludes"
        who = arm_name(str(run.readers.get("arm") or run.proposed))
        said.append(
            f"{who} reached an AUC of {with_interval(machine)}, the readers{_named(way)} on average "
            f"{with_interval(mean)}: a difference of {with_interval(gap)}, which {held} that they are equal. "
            "No difference shown is not equality shown: that would need a margin set in advance."
        )
    return said


def findings(run: Run) -> list[tuple[str, str]]:
    """Return what the reader study has to say about itself: severity and sentence."""
    return [(str(f.get("severity", "")), str(f.get("message", ""))) for f in run.readers.get("findings") or []]


def against_machine(run: Run) -> Table | None:
    """Machine against the mean of the readers, and against each of them."""
    rows = []
    for way in ways(run):
        for figure, held in (way.get("against_machine") or {}).items():
            for key, who in (
                ("random_readers", "mean of such readers (random)"),
                ("fixed_readers", "mean of these readers (fixed)"),
            ):
                test = held.get(key)
                if test:
                    rows.append(_test(figure, f"{who}{_named(way)}", test, "readers_mean"))
            own = {r.get("reader"): r for r in way.get("readers") or []}
            for test in held.get("per_reader") or []:
                name = test.get("reader")
                mean = (own.get(name) or {}).get(figure)
                rows.append(_test(figure, f"{name}{_named(way)}", {**test, "mean": mean}, "mean"))
    if not rows:
        return None
    machine = (run.readers.get("machine") or {}).get("auc")
    e = estimate(machine)
    n = f"; AUC of the machine {with_interval(e)}, n = {e.n}" if e else ""
    return one_method(
        Table(
            f"The machine against the readers, on the same cases{n}.",
            ("", "Measure", "Reader", "Machine − reader", "p", "p (Holm)", "Method"),
            rows,
            note="Random: what holds for other readers like these. Fixed: what holds for these alone. "
            "Holm over the readers.",
            words=(0, 1, 6),
        )
    )


def _test(figure: str, who: str, test: dict[str, Any], mean: str) -> list[str]:
    gap = estimate(test.get("difference"))
    return [
        who,
        metric_label(figure),
        with_interval(estimate(test.get(mean))),
        with_interval(gap),
        p_value(test.get("p")),
        p_value(test.get("p_holm")),
        (gap.method if gap else "–").split("; n =")[0],
    ]


def per_reader(run: Run) -> Table | None:
    """Each reader's figures."""
    held = [(way, r) for way in ways(run) for r in way.get("readers") or []]
    if not any("sensitivity" in r for _, r in held):
        return None  # the AUCs stand in the table of the machine against the readers
    rows = [
        [f"{r.get('reader')}{_named(way)}", *(with_interval(estimate(r.get(m))) for m in _FIGURES)] for way, r in held
    ]
    machine = run.readers.get("machine") or {}
    rows.append([arm_name(str(run.readers.get("arm"))), *(with_interval(estimate(machine.get(m))) for m in _FIGURES)])
    return Table(
        "Each reader and the machine at their operating points.",
        ("", *(metric_label(m) for m in _FIGURES)),
        rows,
        strong=(len(rows) - 1,),
    )


_FIGURES = ("auc", "sensitivity", "specificity")
_ICC = {
    "ICC1": "one reader, readers differ from case to case",
    "ICC2": "one reader, agreement",
    "ICC3": "one reader, consistency",
    "ICC1k": "mean of the readers, readers differ from case to case",
    "ICC2k": "mean of the readers, agreement",
    "ICC3k": "mean of the readers, consistency",
}


def agreement(run: Run) -> Table | None:
    """How far the readers agree among themselves."""
    rows: list[list[str]] = []
    for way in ways(run):
        held = way.get("agreement") or {}
        for key, label in (
            ("fleiss_kappa", "Fleiss' kappa of the ratings"),
            ("fleiss_kappa_of_answers", "Fleiss' kappa of yes and no"),
        ):
            rows += _agreed(f"{label}{_named(way)}", held.get(key))
        for pair in held.get("pairs") or []:
            label = f"Cohen's kappa ({pair.get('weights')} weights), {pair.get('first')} and {pair.get('second')}"
            rows += _agreed(f"{label}{_named(way)}", pair.get("kappa"))
        for key, e in (held.get("icc") or {}).items():
            rows += _agreed(f"{key}, {_ICC.get(key, '')}{_named(way)}", e)
    if not rows:
        return None
    return one_method(
        Table("Agreement of the readers with each other.", ("", "Value", "Interval", "n", "Method"), rows, words=(0, 4))
    )


def _agreed(label: str, held: Any) -> list[list[str]]:
    e = estimate(held)
    return [[label, number(e.value, 2), interval(e, 2), f"{e.n:,}", e.method.split("; n =")[0]]] if e else []


def between(run: Run) -> Table | None:
    """The same readers in two ways of reading, under each inference and one by one."""
    held = run.readers.get("between") or {}
    first, second = str(held.get("first", "")), str(held.get("second", ""))
    rows = []
    for figure, tests in held.items():
        if not isinstance(tests, dict):
            continue
        for key, test in tests.items():
            if key != "per_reader":
                gap = estimate(test.get("difference"))
                means = [with_interval(estimate(m)) for m in test.get("means") or []]
                name = f"{metric_label(figure)}, {_INFERENCES.get(key, key.replace('_', ' '))}"
                rows.append(
                    [name, *(means if len(means) == 2 else ["–", "–"]), with_interval(gap), p_value(test.get("p")), "–"]
                )
        for test in tests.get("per_reader") or []:
            gap = estimate(test.get("difference"))
            name = f"{metric_label(figure)}, {test.get('reader')}"
            rows.append([name, "–", "–", with_interval(gap), p_value(test.get("p")), p_value(test.get("p_holm"))])
    if not rows:
        return None
    return Table(
        f"The same readers in two ways: {first} and {second}.",
        ("", first, second, f"{first} − {second}", "p", "p (Holm)"),
        rows,
        note="Obuchowski and Rockette's analysis with Hillis' degrees of freedom; for each reader a paired test.",
    )
