"""The command: one verb a stage. It alone talks to a terminal.

It must not know how anything is done; torch is loaded only by the verbs that need it.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from tenfold.errors import Refusal, StudyError, nearest

if TYPE_CHECKING:
    from tenfold.bundle import Predictor
    from tenfold.cohort.audit import Audit
    from tenfold.study.progress import Progress

_SIMULATOR_OPTIONS = (
    "patients", "prevalence", "adults", "shift", "marker_shortcut", "duplicates", "shared_patients",
    "size", "source", "external", "readers", "missing", "legibility", "ineligible",
    "neonates", "regions", "transfer", "preset", "missing_scores", "pictures", "sites", "missing_views",
)  # fmt: skip

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From a small clinical cohort to a diagnostic model its owner can defend. Research use only.",
)
error_console = Console(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Folder for the results; empty or absent.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but refusals.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a key of the study file: --set validation.folds=5. Can be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines, nothing else.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; all if left out.", min=1)]


@app.command(name="import")
def import_(
    layout: Annotated[
        str,
        typer.Argument(help="The layout: abide, bids, breast, busi, folders, kermany, medmnist, nih, redcap, table."),
    ],
    source: Annotated[Path, typer.Argument(help="The folder (or .npz file) as it was downloaded.")],
    out: Out,
    hardlink: Annotated[bool, typer.Option(help="Link the pictures instead of copying them.")] = False,
    patient: Annotated[
        str, typer.Option(help="For folders: a regular expression with a group (?P<patient>...) for the file name.")
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(help="For bids, redcap and table: the column of the outcome. Can be repeated."),
    ] = None,
    event: Annotated[str, typer.Option(help="For redcap: the event to take, where there are several.")] = "",
    patient_column: Annotated[str, typer.Option(help="For table: the column that says who somebody is.")] = "",
    atlas: Annotated[str, typer.Option(help="For abide and bids: the atlas to take, where there are several.")] = "",
    task: Annotated[str, typer.Option(help="For bids: the task to take, where there are several.")] = "",
    holds: Annotated[
        str, typer.Option(help="For bids: timeseries or matrix, where there are both for the same scans.")
    ] = "",
    measure: Annotated[
        str, typer.Option(help="For abide and bids: 'correlation' or 'partial correlation' of time courses.")
    ] = "",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Turn a public layout, BIDS derivatives, a REDCap export or a table into a cohort.csv and a study.toml."""
    from tenfold.cohort.importers import importer
    from tenfold.config import starter_study
    from tenfold.types import write_atomically

    do_import = importer(layout)
    asked = {
        "hardlink": hardlink,
        "patient": patient,
        "target": target[0] if target and len(target) == 1 else target,
        "event": event,
        "patient_column": patient_column,
        "atlas": atlas,
        "task": task,
        "holds": holds,
        "measure": measure,
    }
    taken = inspect.signature(do_import).parameters
    options = {name: value for name, value in asked.items() if value}
    for name in options:
        if name not in taken:
            raise StudyError(f"the layout '{layout}' takes no --{name.replace('_', '-')}", do="leave it out")
    if "patient" in taken and not patient:
        raise StudyError(
            f"the layout '{layout}' does not say who the patients are",
            do="give a regular expression for the file names: --patient '(?P<patient>[^_]+)_.*'",
        )
    done = do_import(source, out, **options)
    study = out / "study.toml"
    write_atomically(study, starter_study(done.study, title=f"A study of {layout}"))
    _tell(quiet, as_json, {"cohort": str(done.cohort), "study": str(study), "note": [n.message for n in done.notes]})


@app.command()
def check(
    study: Annotated[Path, typer.Argument(help="A study.toml, or the folder that holds one.")],
    findings: Annotated[
        Path | None, typer.Option(help="Where to write findings.csv; beside the study if left out.")
    ] = None,
    changes: Changes = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Audit a cohort before anything is fitted; exit code 1 where something must be mended."""
    from tenfold.config import merge_changes
    from tenfold.study import Study

    plan = Study.read(study, merge_changes(changes or ()))
    with _progress(quiet or as_json) as progress:
        found = plan.check(progress=progress)
    place = findings or plan.folder / "findings.csv"
    found.write_findings(place)
    size = plan.sample_size(found)
    if as_json:
        listed = [{"severity": f.severity, "check": f.check, "message": f.message} for f in found.findings]
        _print_json({"findings": listed, "sample_size": size})
    elif not quiet:
        _show_findings(found, place)
        for target, own in size.items():
            _show_sample_size(own, target if len(size) > 1 else "")
    if found.refusals:
        raise typer.Exit(1)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study.toml, or the folder that holds one.")],
    out: Out,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted in --out.")] = False,
    changes: Changes = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Split, fit every arm, evaluate, explain, bundle and report."""
    from tenfold.config import merge_changes
    from tenfold.study import Study

    plan = Study.read(study, merge_changes(changes or ()))
    try:
        with _progress(quiet or as_json) as progress:
            done = plan.run(out=out, resume=resume, device=device, threads=threads, progress=progress)
    except KeyboardInterrupt:
        error_console.print("interrupted; the same command with --resume goes on from here")
        raise typer.Exit(130) from None
    _tell_results(done, quiet, as_json)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder of a run.")],
    cohort: Annotated[Path, typer.Argument(help="A cohort.csv of other patients.")],
    out: Out,
    column: Annotated[str | None, typer.Option(help="Column of the outcome; as in the study if left out.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Put other patients through a frozen bundle: external validation."""
    from tenfold.cohort.manifest import Cohort
    from tenfold.study import evaluate_bundle

    with _progress(quiet or as_json) as progress:
        done = evaluate_bundle(
            bundle, Cohort.read(cohort), out=out, column=column, device=device, threads=threads, progress=progress
        )
    _tell_results(done, quiet, as_json)


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder of a run.")],
    given: Annotated[
        list[Path],
        typer.Argument(help="Films (PNG, JPEG, TIFF, DICOM), or one cohort.csv with films, tables, connectomes."),
    ],
    heatmap: Annotated[Path | None, typer.Option(help="Folder for a heat map of every film.")] = None,
    member: Annotated[
        str | None, typer.Option(help="One model of the bundle, for example fold-0-3; all if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Calibrated probability and decision for patients, by target; exit code 1 where one could not be read."""
    from tenfold.bundle import load
    from tenfold.types import refuse_unwritable

    if heatmap is not None:
        refuse_unwritable(heatmap)
    predictor = load(bundle, member=member, device=device)
    cases, names = _cases(predictor, given)
    told = {}
    for target in predictor.targets:
        answers = predictor.of(target).predict(cases, cases=names, on_error="return")
        told[target] = [{"target": target, **answer.to_dict()} for answer in answers]
    first, rows = told[predictor.target], [row for rows in told.values() for row in rows]
    if heatmap is not None:
        for position, (case, row) in enumerate(zip(cases, first, strict=True)):
            if row["decision"] is not None:
                stem = f"{position:03d}-{Path(row['case']).stem}"
                row["heatmaps"] = [str(path) for path in _write_heatmaps(predictor, case, heatmap, stem)]
    if as_json:
        _print_json(rows)
    elif not quiet:
        for name, own in told.items():
            _show_predictions(own, predictor.of(name))
    for row in first:
        if row["error"] and not as_json:
            error_console.print(escape(row["error"]), style="red")
    if any(row["error"] for row in first):
        raise typer.Exit(1)


def _cases(predictor: Predictor, given: list[Path]) -> tuple[list[Any], list[str]]:
    """Films as they are; a cohort file as what each of its rows brings."""
    if len(given) > 1 or given[0].suffix.lower() != ".csv":
        return list(given), [str(path) for path in given]
    from tenfold.cohort.manifest import Cohort
    from tenfold.study.external import given_by

    cohort = Cohort.read(given[0])
    return given_by(predictor, cohort), cohort.case.tolist()


@app.command()
def readers(
    run: Annotated[Path, typer.Argument(help="The folder of a run or of an external evaluation.")],
    ratings: Annotated[Path, typer.Argument(help="CSV: reader, case, rating and, where they read twice, modality.")],
    called_from: Annotated[
        float | None, typer.Option(help="The lowest rating that is a 'yes'; without it readers have no sensitivity.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compare readers with the machine on the cases that they rated, and add it to the report."""
    from tenfold.report.page import write_report
    from tenfold.study.readers import write_reader_study

    written = write_reader_study(run, ratings, called_from=called_from)
    if written.parent != run:
        write_report(written.parent)
    _tell(quiet, as_json, {"readers": str(written), "report": str(write_report(run))})


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run or of an external evaluation.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw the report again from the files of a run; no network is loaded."""
    from tenfold.report.page import write_report

    _tell(quiet, as_json, {"report": str(write_report(folder))})


@app.command()
def simulate(
    system: Annotated[str, typer.Argument(help="Which disease: lymphnode, nec, neurodevelopment, pneumonia.")],
    out: Out,
    patients: Annotated[int | None, typer.Option(help="How many patients.", min=20)] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 1,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Part of the patients who are ill; neurodevelopment: below 85.", min=0.02, max=0.95),
    ] = None,
    adults: Annotated[
        int | None,
        typer.Option(help="pneumonia, neurodevelopment: how many adults to learn from first.", min=1),
    ] = None,
    shift: Annotated[
        float | None,
        typer.Option(help="pneumonia: how foreign the hospital is: 0 as in training, 1 other exposure.", min=0.0),
    ] = None,
    marker_shortcut: Annotated[
        float | None, typer.Option(help="pneumonia: plant a marker on this part of the positive films.", min=0, max=1)
    ] = None,
    duplicates: Annotated[
        int | None, typer.Option(help="pneumonia: plant so many films under a second patient.", min=0)
    ] = None,
    shared_patients: Annotated[
        int | None, typer.Option(help="pneumonia: plant so many patients with both outcomes.", min=0)
    ] = None,
    size: Annotated[int | None, typer.Option(help="lymphnode, nec: side of the pictures, pixels.", min=48)] = None,
    source: Annotated[
        int | None,
        typer.Option(help="nec: older children, lymphnode: another organ's patients, to learn from first.", min=0),
    ] = None,
    external: Annotated[int | None, typer.Option(help="nec: newborns of another hospital.", min=0)] = None,
    readers: Annotated[int | None, typer.Option(help="nec: doctors who rate the external set.", min=0)] = None,
    missing: Annotated[str | None, typer.Option(help="nec: missing values: none, random, realistic.")] = None,
    legibility: Annotated[
        float | None, typer.Option(help="lymphnode, nec: how plain the signs are.", min=0, max=1)
    ] = None,
    ineligible: Annotated[int | None, typer.Option(help="nec: rows that eligibility must find.", min=0)] = None,
    neonates: Annotated[
        int | None, typer.Option(help="neurodevelopment: newborns without labels to learn from.", min=1)
    ] = None,
    regions: Annotated[int | None, typer.Option(help="neurodevelopment: regions of the atlas.", min=10)] = None,
    transfer: Annotated[
        float | None,
        typer.Option(help="neurodevelopment: what adults and infants have in common, 0 to 1.", min=0, max=1),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="neurodevelopment: how well scores can be told: paper, realistic.")
    ] = None,
    missing_scores: Annotated[
        float | None, typer.Option(help="neurodevelopment: part of each score that is left out.", min=0, max=0.95)
    ] = None,
    pictures: Annotated[int | None, typer.Option(help="lymphnode: most pictures of a view.", min=1)] = None,
    sites: Annotated[int | None, typer.Option(help="lymphnode: hospitals.", min=1)] = None,
    missing_views: Annotated[
        float | None, typer.Option(help="lymphnode: part of the views that patients lack.", min=0, max=0.9)
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a cohort whose truth, and whose best attainable AUC, are known."""
    from tenfold.config import builtin_study_text
    from tenfold.simulate import SIMULATORS
    from tenfold.types import write_atomically

    asked = {name: value for name, value in locals().items() if name in _SIMULATOR_OPTIONS and value is not None}
    if system not in SIMULATORS:
        raise StudyError(f"no simulator '{system}'", do=nearest(system, SIMULATORS))
    taken = inspect.signature(SIMULATORS[system]).parameters
    for name in asked:
        if name not in taken:
            raise StudyError(f"the simulator '{system}' takes no --{name.replace('_', '-')}", do="leave it out")
    made = SIMULATORS[system](out, seed=seed, **asked)
    write_atomically(out / "study.toml", builtin_study_text(f"{system}_simulated.toml"))
    _tell(quiet, as_json, {"study": str(out / "study.toml"), "ceiling_auc": round(made.ceiling_auc, 4)})


@app.command()
def contact_sheet(
    study: Annotated[Path, typer.Argument(help="A study.toml, or the folder that holds one.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the pages, one a view and hundred pictures.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show every picture before and after it is masked, for a person to look at and sign."""
    from tenfold.study import Study
    from tenfold.study.sheets import write_contact_sheets

    with _progress(quiet or as_json) as progress:
        pages = write_contact_sheets(Study.read(study), out, progress)
    _tell(quiet, as_json, {"pages": [str(page) for page in pages]})


@app.command()
def serve(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders; each is a model to choose.")],
    log: Annotated[Path, typer.Option(help="Folder of the log, which only grows.")] = Path("tenfold-log"),
    host: Annotated[str, typer.Option(help="Address; any but this machine's own needs --users or a proxy.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    users: Annotated[Path | None, typer.Option(help="File of users, as `tenfold user` writes it.")] = None,
    trusted_header: Annotated[str, typer.Option(help="Header in which a proxy names the user.")] = "",
    trusted_hop: Annotated[list[str] | None, typer.Option(help="Address of that proxy. Can be repeated.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Name that people type. Can be repeated.")] = None,
    retention_days: Annotated[int, typer.Option(help="Older parts of the log are removed; 0 keeps all.", min=0)] = 400,
    rate: Annotated[int, typer.Option(help="Questions a minute and user.", min=1)] = 120,
    queue: Annotated[int, typer.Option(help="Cases that may wait.", min=1)] = 64,
    threads: Annotated[int, typer.Option(help="CPU threads of the networks; 0: all.", min=0)] = 0,
    engine: Annotated[str, typer.Option(help="auto, torch or openvino.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Offer bundles to a browser and over an API. Research use only - not a medical device."""
    from tenfold.serve.app import serve as serve_app
    from tenfold.serve.decode import Limits
    from tenfold.serve.engine import Engine, EngineSettings
    from tenfold.serve.settings import Settings

    settings = Settings(
        log=log,
        host=host,
        port=port,
        users=users,
        trusted_header=trusted_header,
        trusted_hops=tuple(trusted_hop or ()),
        allow_hosts=tuple(allow_host or ()),
        retention_days=retention_days,
        rate=rate,
        queue=queue,
    )
    started = Engine.start(
        bundles,
        settings=EngineSettings(
            decoders=settings.workers,
            limits=Limits(max_pixels=settings.max_pixels),
            queue=settings.queue,
            threads=threads,
            engine=engine,
        ),
    )
    try:
        if not quiet:
            for model in started.models.values():
                typer.echo(f"{model.title}: {model.engine_name}, {model.digest[:12]}")
        serve_app(started, settings, lambda address: None if quiet else typer.echo(f"{address} (stop with Ctrl-C)"))
    finally:
        started.close()


user_app = typer.Typer(no_args_is_help=True, help="Who may use the server.")
app.add_typer(user_app, name="user")


@user_app.command(name="add")
def user_add(
    name: Annotated[str, typer.Argument(help="The name that they log in with.")],
    users: Annotated[Path, typer.Option(help="The file of users.")] = Path("users.toml"),
) -> None:
    """Add a user, or give one a new password, which is asked for."""
    from tenfold.serve.users import add_user

    add_user(users, name, typer.prompt("Password", hide_input=True, confirmation_prompt=True))


@user_app.command(name="remove")
def user_remove(
    name: Annotated[str, typer.Argument(help="Whose access ends.")],
    users: Annotated[Path, typer.Option(help="The file of users.")] = Path("users.toml"),
) -> None:
    """Remove a user."""
    from tenfold.serve.users import remove_user

    remove_user(users, name)


log_app = typer.Typer(no_args_is_help=True, help="The log of a server.")
app.add_typer(log_app, name="log")
LogFolder = Annotated[Path, typer.Argument(help="The folder of the log.")]


@log_app.command(name="verify")
def log_verify(folder: LogFolder, as_json: AsJson = False) -> None:
    """Check that no line was changed, removed or moved; exit code 1 where one was."""
    from tenfold.serve.log_check import head, verify

    found, last = verify(folder), head(folder)
    if as_json:
        _print_json({"head": last, "findings": [{**vars(f), "tampering": f.tampering} for f in found]})
    else:
        for finding in found:
            error_console.print(escape(finding.message), style="red" if finding.tampering else "yellow")
        typer.echo(
            f"Last line: {last or 'none'}. Whoever can write the folder could build all of it anew: note it down."
        )
    if any(finding.tampering for finding in found):
        raise typer.Exit(1)


@log_app.command(name="export")
def log_export(
    folder: LogFolder,
    since: Annotated[str, typer.Option(help="ISO date or time in UTC, from which on.")] = "",
    until: Annotated[str, typer.Option(help="ISO date or time in UTC, before which.")] = "",
    form: Annotated[str, typer.Option(help="jsonl or csv.")] = "jsonl",
) -> None:
    """Print the lines of a span of time."""
    from tenfold.serve.log_check import export

    export(folder, sys.stdout, since=since, until=until, form=form)


@app.command()
def schema() -> None:
    """Print the JSON schema of study.toml, for editors."""
    from tenfold.config import study_schema

    sys.stdout.write(study_schema())


def main() -> NoReturn:
    """Run the command line: 0 done, 1 a refusal, 2 bad usage."""
    try:
        app()
    except Refusal as refusal:
        error_console.print(f"[bold red]tenfold:[/] {escape(str(refusal))}", soft_wrap=True, highlight=False)
        sys.exit(1)
    sys.exit(0)


@contextmanager
def _progress(silent: bool) -> Iterator[Progress]:
    """Draw bars on a terminal, a line a step elsewhere, nothing where silence was asked for."""
    from tenfold.study.progress import Progress

    if silent:
        yield Progress()
        return

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=error_console, transient=True) as bars:

        class Drawn(Progress):
            """What the study says, as bars."""

            task: Any = None

            def start(self, what: str, total: int) -> None:
                if self.task is not None:
                    bars.remove_task(self.task)
                self.task = bars.add_task(escape(what), total=total)
                if not error_console.is_terminal:
                    error_console.print(escape(what), highlight=False)

            def advance(self, parts: int = 1) -> None:
                bars.advance(self.task, parts)

            def reach(self, parts: int) -> None:
                bars.update(self.task, completed=parts)

            def say(self, text: str) -> None:
                error_console.print(escape(text), highlight=False)

        yield Drawn()


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _tell(quiet: bool, as_json: bool, facts: dict[str, Any]) -> None:
    """Print what came out, for a person or for a machine."""
    if as_json:
        _print_json(facts)
    elif not quiet:
        for name, value in facts.items():
            for line in value if isinstance(value, list) else [value]:
                typer.echo(f"{name}: {line}")


def _tell_results(done: Any, quiet: bool, as_json: bool) -> None:
    facts: dict[str, Any] = {"report": str(done.report)}
    if done.bundle.is_dir():
        facts["bundle"] = str(done.bundle)
    if as_json:
        _print_json({**facts, "evaluation": done.evaluation})
        return
    if quiet:
        return
    for target, arms in done.evaluation.items():
        title = target if len(done.evaluation) > 1 else None
        table = Table("arm", "AUC (95 % interval)", "sensitivity", "specificity", "n", title=title)
        for arm, metrics in arms.items():
            shown = [_interval(metrics[m]) for m in ("auc", "sensitivity", "specificity")]
            table.add_row(escape(arm), *shown, str(metrics["auc"]["n"]))
        Console().print(table)
    _tell(quiet, as_json, facts)


def _interval(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return "not defined"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _show_findings(found: Audit, place: Path) -> None:
    table = Table("severity", "check", "what", show_lines=True)
    colours = {"refusal": "red", "warning": "yellow", "note": "dim"}
    for finding in found.findings:
        table.add_row(finding.severity, finding.check, escape(finding.message), style=colours[finding.severity])
    Console().print(table if found.findings else "nothing found")
    counts = [f"{sum(f.severity == s for f in found.findings)} {s}s" for s in colours]
    typer.echo(f"{', '.join(counts)}; written to {place}")


def _show_sample_size(size: dict[str, Any], target: str) -> None:
    have, width, needed = size["patients"], size["auc_width"], size["riley"]
    about = f"{target}: " if target else ""
    typer.echo(
        f"{about}{have['positives']} patients with and {have['negatives']} without the outcome: an AUC of "
        f"{size['expected_auc']:.2f} would be known from {width['low']:.3f} to {width['high']:.3f} ({width['method']})."
    )
    typer.echo(
        f"A regression on {needed['parameters']} parameters would need {needed['n']} patients ({needed['method']}); "
        f"an external validation {size['validation']['n']} (Pavlou et al. 2021)."
    )


def _show_predictions(rows: list[dict[str, Any]], predictor: Predictor) -> None:
    table = Table(
        "case", f"probability of {predictor.positive}", "models' range", "decision", "prediction set", "missing",
        title=predictor.target if len(predictor.targets) > 1 else None,
    )  # fmt: skip
    for row in rows:
        name = escape(Path(row["case"]).name)
        if row["error"]:
            table.add_row(name, "-", "-", "no result", "-", "-", style="red")
            continue
        low, high = row["spread"]
        cells = sum(len(columns) for columns in row["missing_cells"].values())
        lacking = [f"no {name}" for name in row["missing_inputs"]] + (
            [f"{cells} value{'s' * (cells > 1)}"] if cells else []
        )
        likely = row["prediction_set"]
        table.add_row(
            name,
            f"{row['probabilities'][predictor.positive]:.3f}",
            f"{low:.3f} to {high:.3f}",
            row["decision"],
            "-" if likely is None else " or ".join(likely) or "neither",
            ", ".join(lacking),
        )
    Console().print(table)
    # what answers without an input are worth was measured for the first target alone
    of_first = predictor.target == predictor.targets[0]
    for name in sorted({name for row in rows for name in row["missing_inputs"]} if of_first else ()):
        auc = predictor.facts.get("without", {}).get(name)
        known = f"AUC {_interval(auc)} out of fold" if auc else "not measured"
        typer.echo(f"Without {name} the answer is worth less: {known}.")
    point = predictor.operating_point
    if point is not None:
        if len(predictor.classes) > 2:
            typer.echo(f"The likeliest of {', '.join(predictor.classes)} is decided for. As a question of its own:")
        typer.echo(f"{predictor.positive} from {point.threshold:.3f} on ({point.rule}). Research use only.")


def _write_heatmaps(predictor: Predictor, case: Any, folder: Path, stem: str) -> list[Path]:
    """Average the heat maps of all models of the bundle and lay them over the prepared pictures, one file each."""
    import numpy as np

    from tenfold.explain.grad_cam import map_step, normalise, raw_grad_cam
    from tenfold.explain.overlay import overlay, png_bytes
    from tenfold.types import write_atomically

    prepared = predictor.prepare(case)
    stacked = predictor.stack([prepared])
    (mean,) = predictor.predict_arrays(stacked)
    # of two classes the one to be detected is explained, of more the one decided for
    index = int(mean.argmax()) if len(mean) > 2 else predictor.classes.index(predictor.positive)
    written = []
    for view in predictor.preparations:
        given = prepared[view]
        if given is None:
            continue
        maps = []
        for member, network in enumerate(predictor.networks):
            inputs = predictor.tensors(stacked, member)
            step = map_step(network.encoders[view], inputs[view], int(predictor.facts.get("heat_map_layer", 1)))
            maps.append(raw_grad_cam(network, inputs, view=view, target=predictor.target, index=index, step=step))
        (heats,) = normalise(np.mean(maps, 0))
        films = given if view in predictor.pools else given[None]
        for i, (film, heat) in enumerate(zip(films, heats if view in predictor.pools else heats[None], strict=True)):
            several = len(predictor.preparations) > 1 or view in predictor.pools
            written.append(folder / (f"{stem}-{view}-{i + 1}.png" if several else f"{stem}.png"))
            shown = predictor.preparations[view].visible(film)
            write_atomically(written[-1], png_bytes(overlay(shown, heat)))
    return written


if __name__ == "__main__":
    main()
