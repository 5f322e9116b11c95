from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tenfold.report import beside, chance, checklists, methods_text, targets, words
from tenfold.report.load import load
from tenfold.report.model_card import write_model_card
from tenfold.report.page import write_report
from tenfold.report.published import headline, published

TARGETS = ("cognitive", "language", "motor")


class Ids(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.ids += [held["id"] or ""] if "id" in held else []
        self.links += [(held["href"] or "")[1:]] if (held.get("href") or "").startswith("#") and tag == "a" else []


def read(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def section(text: str, name: str) -> str:
    return text.split(f'<section id="{name}"')[1].split("</section>")[0]


@pytest.fixture
def altered(several: Path, tmp_path: Path) -> Callable[..., Path]:
    """Give a copy of the run of three targets in which one file was changed."""

    def make(name: str, change: Callable[[Any], Any]) -> Path:
        left_out = shutil.ignore_patterns("figures", "report.html", "patients")
        folder = Path(shutil.copytree(several, tmp_path / "copy", ignore=left_out))
        held = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(change(held)), "utf-8")
        return folder

    return make


def test_every_target_has_its_own_part_and_no_link_leads_nowhere(several: Path) -> None:
    text = read(several)
    seen = Ids(text)
    assert len(seen.ids) == len(set(seen.ids))
    assert set(seen.links) <= set(seen.ids)
    for target in TARGETS:
        assert {f"{name}-{target}" for name in ("target", "performance", "operating", "sure", "arms")} <= set(seen.ids)
        assert (several / "figures" / f"roc-{target}.svg").is_file()
    assert "could not be drawn" not in text


def test_every_table_and_figure_of_a_target_carries_its_name(several: Path) -> None:
    part = read(several).split('<section id="target-language"')[1].split('<section id="target-motor"')[0]
    captions = re.findall(r"<caption><span>(.*?)</span>", part) + re.findall(r"<figcaption>(.*?)</figcaption>", part)
    assert len(captions) > 12
    assert all(caption.startswith("Language") for caption in captions)


def test_numbers_of_a_target_stand_in_its_own_part(several: Path) -> None:
    run, text = load(several), read(several)
    for view in run.each:
        auc = view.estimates(view.proposed)["auc"]
        assert words.with_interval(auc).split(" (")[0] in section(text, f"performance-{view.target}")
    assert run.each[1].estimates(run.proposed)["auc"] != run.estimates(run.proposed)["auc"]


def test_summary_comes_first_and_says_what_is_chance(several: Path) -> None:
    answer = section(read(several), "answer")
    assert answer.index('id="targets"') < answer.index('id="figure-targets"')
    assert "did better than chance on cognitive and motor and cannot be told from chance on language" in answer
    assert "Language cannot be told from chance by these data" in answer
    assert "Motor cannot be told" not in answer
    table = targets.summary(load(several))
    assert table is not None
    told = table.columns.index("Told from chance")
    assert [row[told] for row in table.rows] == ["yes", "no", "yes"]
    assert table.columns[-2:] == ("Known", "Positive")
    assert [row[-2:] for row in table.rows] == [["33", "11"], ["31", "11"], ["33", "11"]]


def test_limits_and_card_say_what_is_chance(several: Path) -> None:
    limits = next(i for i in checklists.fill(load(several), "claim").items if i.number == "40").answer
    assert "Language cannot be told from chance" in limits
    assert "Cognitive cannot" not in limits
    card = write_model_card(several)
    assert "## Performance: language" in card
    assert "language cannot be told from chance" in card
    assert "motor cannot be told" not in card
    assert "A heat map" not in card


def test_permutations_overrule_an_interval_above_one_half(altered: Callable[..., Path]) -> None:
    def change(held: Any) -> Any:
        held["motor"]["A → B → C"]["p"] = 0.05
        return held

    folder = altered("permutations.json", change)
    assert chance.untold(load(folder)) == ["language", "motor"]
    assert "motor cannot be told from chance" in write_model_card(folder)


def test_without_permutations_the_interval_alone_decides(several: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(several, tmp_path / "copy", ignore=shutil.ignore_patterns("permutations.json")))
    run = load(folder)
    assert chance.untold(run) == ["language"]
    table = targets.summary(run)
    assert table is not None
    assert "p, labels permuted" not in table.columns


def test_a_single_target_that_is_chance_is_said_to_be(whole: Path, tmp_path: Path, no_figures: None) -> None:
    assert chance.sentences(load(whole)) == []
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    held = json.loads((folder / "evaluation.json").read_text("utf-8"))
    held["diagnosis"]["proposed"]["auc"] |= {"value": 0.6, "low": 0.45, "high": 0.75}
    (folder / "evaluation.json").write_text(json.dumps(held), "utf-8")
    text = read(write_report(folder).parent)
    assert "Diagnosis cannot be told from chance" in section(text, "answer")
    assert "Diagnosis cannot be told from chance" in section(text, "sure")


def test_one_target_named_as_several_is_the_old_report(whole: Path, tmp_path: Path, no_figures: None) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    before = write_report(folder).read_bytes()
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    facts["targets"] = [facts["target"]]
    (folder / "run.json").write_text(json.dumps(facts), "utf-8")
    rows = (folder / "operating_points.csv").read_text("utf-8").splitlines()
    named = [f"target,{rows[0]}", *(f"diagnosis,{row}" for row in rows[1:])]
    (folder / "operating_points.csv").write_text("\n".join(named), "utf-8")
    (folder / "permutations.json").write_text("{}", "utf-8")
    assert write_report(folder).read_bytes() == before


def test_what_is_written_by_target_is_read_as_that_target(several: Path, altered: Callable[..., Path]) -> None:
    run = load(several)
    assert [words.ceiling(view) for view in run.each] == [0.85, 0.67, 0.83]
    assert [words.ceiling_of(view, "clinical only") for view in run.each] == [0.7, 0.6, 0.69]
    assert len(run.each[2].operating_points) == len(run.operating_points) == 40
    assert run.each[1].cohort["by_class"]["not below 85"]["cases"] == 20
    assert words.population(run.each[1]).startswith("31 cases of 31 patients")
    assert words.everybody(run).startswith("33 cases of 33 patients; cognitive known of 33, below 85 in 11; language")
    assert set(run.each[1].subgroups) == {"sex"}
    unwrapped = load(altered("conformal.json", lambda held: held["cognitive"]))
    assert unwrapped.conformal["classes"]
    assert unwrapped.each[1].conformal == {}


def test_gain_is_shown_only_where_the_run_compared(altered: Callable[..., Path]) -> None:
    folder = altered("comparisons.json", lambda held: {**held, "motor": []})
    first, _, motor = load(folder).each
    assert "no pre-training" in chance.gain_sentence(first)
    assert chance.gain_sentence(motor) == ""


def test_published_figures_by_outcome(several: Path) -> None:
    rows = published("neurodevelopment")["rows"]
    assert rows[0]["aucs"] == {"cognitive": 0.86, "language": 0.66, "motor": 0.84}
    assert rows[1]["aucs"] == {"cognitive": 0.77, "language": 0.63, "motor": 0.74}
    assert headline("neurodevelopment", "bayley_motor")["auc"] == 0.84
    assert headline("neurodevelopment", "autism") == {}
    table = beside.table(load(several))
    assert table is not None
    ours, theirs = table.rows[:2]
    assert ours[0] == "This run: A → B → C"
    assert theirs[1:] == ["0.86 [0.70 to 1.00]", "0.66 [0.45 to 0.87]", "0.84 [0.67 to 1.00]"]
    anchors = set(Ids(read(several)).ids)
    assert {entry["anchor"] for entry in published("neurodevelopment")["beside"]} <= anchors


def test_intervals_beside_the_paper_are_those_of_hanley_and_mcneil() -> None:
    ill, well = 10, 23
    for row in published("neurodevelopment")["rows"]:
        for name, area in row["aucs"].items():
            q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
            variance = area * (1 - area) + (ill - 1) * (q1 - area**2) + (well - 1) * (q2 - area**2)
            half = 1.96 * (variance / ill / well) ** 0.5
            assert row["intervals"][name] == pytest.approx([area - half, min(area + half, 1)], abs=0.006)


def test_methods_tell_connectome_chain_and_outcomes(several: Path) -> None:
    run = load(several)
    text = " ".join(methods_text.paragraphs(run))
    assert "12 regions (66 edges, each pair once), named in AAL, neonatal" in text
    assert "effects of “site” were taken out by ComBat" in text
    assert "age_at_scan and mean_fd were regressed out of every edge" in text
    assert "(self-supervised, no labels: an auto-encoder; thawed: all)" in text
    assert "reset: heads, shared layer" in text
    assert "language (column “bayley_language”, learned as a score; positive: below 85)" in text
    assert "in the span of the training patients' connectomes" in text
    assert "Grad-CAM" not in text
    assert {"Johnson 2007", "Yu 2018"} <= {r.key for r in methods_text.cited(run)}
    answers = {i.number: i.answer for i in checklists.fill(run, "claim").items}
    assert "deep learning on connectomes and tables" in answers["1"]
    assert "Grad-CAM" not in answers["31"]
    assert "connectome of another size" in next(
        i.answer for i in checklists.fill(run, "tripod_ai").items if i.number == "27a"
    )


def test_edges_are_shown_with_their_doubts(several: Path) -> None:
    text = section(read(several), "explanations")
    assert "A heat map" not in text
    assert text.count('src="data:image/png;base64,') == 2
    assert "The folds weigh the edges hardly alike: 0.31" in text
    assert text.count("what moved it says nothing about the disease") == 1
    assert "The 15 edges of connectome that moved cognitive most, of 40 listed." in text
    assert "The 4 edges of connectome that go along most with the answers on cognitive, of 4 listed." in text
    assert "Haufe et al. 2014" in text
    assert (several / "figures" / "networks-connectome-cognitive.svg").is_file()


def test_a_path_out_of_the_folder_and_a_broken_list_of_edges_cost_themselves_only(
    altered: Callable[..., Path], no_figures: None
) -> None:
    def change(held: Any) -> Any:
        edges = held["edges"]["connectome"]
        edges["cognitive"] |= {"mean": "../../secret.json", "figure": "../x.png"}
        edges["language"] |= {"mean": [1, 2], "network_sums": {"names": ["a"], "matrix": [[1, 2]]}, "stability": None}
        return held

    folder = altered("explanations.json", change)
    text = read(write_report(folder).parent)
    assert "edges of connectome that moved" not in text
    assert "No edges can be shown" not in text
    assert "Method: integrated gradients" in text


def test_edges_of_the_wrong_shape_and_edges_that_are_not_there_say_so(
    altered: Callable[..., Path], no_figures: None
) -> None:
    def change(held: Any) -> Any:
        edges = held["edges"]["connectome"]
        edges["cognitive"]["network_sums"] = {"names": ["a"], "matrix": [["x"]]}
        edges["language"] = {"method": "2 folds", "regions": [], "mean": []}
        return held

    text = read(write_report(altered("explanations.json", change)).parent)
    assert "The edges of connectome cannot be read from explanations.json (ValueError" in text
    assert "No edges can be shown: 2 folds." in text
