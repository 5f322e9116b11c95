"""The study file: study.toml to frozen typed models and back.

It must not know how any part works: it names things and checks their form. Below `study.py` nobody sees it.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from tenfold.errors import StudyError, nearest
from tenfold.types import write_atomically

PRESETS = ("quick", "standard", "thorough", "paper")
SYSTEMS = {
    "lymphnode": "lymphnode_paper.toml",
    "nec": "nec_paper.toml",
    "neurodevelopment": "neurodevelopment_paper.toml",
    "pneumonia": "pneumonia_paper.toml",
}
"""Published systems and the file that holds their literal settings."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A table of the study file: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    section: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    place = f"[{cls.section}]" if cls.section else "the top of the study file"
                    raise _UnknownKey(
                        f"unknown key '{key}' in {place}",
                        do=nearest(str(key), cls.model_fields),
                        key=str(key),
                    )
        return data


class _UnknownKey(StudyError):
    def __init__(self, came: str, *, do: str, key: str) -> None:
        super().__init__(came, do=do)
        self.key = key


class CohortSection(_Section):
    """Where the patients are, and what the audit forgives."""

    section: ClassVar[str] = "cohort"
    file: str = Field("cohort.csv", description="The cohort file, relative to the study file.")
    unreadable: Literal["refuse", "exclude"] = Field(
        "refuse", description="'exclude' leaves unreadable and blank pictures out and lists them."
    )
    two_classes: Literal["refuse", "declared"] = Field(
        "refuse", description="'declared': a patient may appear in two outcome classes (two episodes)."
    )
    duplicates: Literal["refuse", "group", "exclude"] = Field(
        "refuse",
        description="The same picture under two patients: stop, keep those patients in one fold, or leave them out.",
    )


class TargetSection(_Section):
    """What is to be told; several of them as [[target]] are learned by one network. Evaluated is a yes or no each."""

    section: ClassVar[str] = "target"
    column: str = Field(description="Column of the cohort file that holds the outcome.")
    name: Annotated[str, Field(pattern=r"^[\w-]{0,40}$")] = Field(
        "", description="Name in files and reports; the column's name if empty."
    )
    kind: Literal["class", "ordinal", "score"] = Field(
        "class", description="'ordinal': levels in order; 'score': a number that is cut for the yes or no, see below."
    )
    classes: tuple[str, ...] = Field(
        (),
        description="Class names, negative first, or levels, lowest first; two are found in the column if empty. Of a "
        "score: what its two sides are called.",
    )
    positive: str = Field(
        "", description="The class to be detected, the last if empty; of levels the lowest that counts as yes."
    )
    below: float | None = Field(None, description="For a score: yes is below this number, not at it.")
    above: float | None = Field(None, description="For a score: yes is above this number, not at it.")

    @property
    def called(self) -> str:
        """Its name in files and reports."""
        return self.name or self.column

    @model_validator(mode="after")
    def _kind_has_parts(self) -> TargetSection:
        cuts = [cut for cut in (self.below, self.above) if cut is not None]
        if self.kind == "score" and (len(cuts) != 1 or self.positive or len(self.classes) not in (0, 2)):
            raise StudyError(
                f"the score '{self.called}' has {len(cuts)} cuts"
                + (f" and a positive class '{self.positive}'" if self.positive else "")
                + (f" and {len(self.classes)} class names" if len(self.classes) not in (0, 2) else ""),
                expected="one cut, declared: below = 85.0 or above = ...; classes are two names or none",
            )
        if self.kind != "score" and cuts:
            raise StudyError(f"target '{self.called}' is cut but no score", do='add kind = "score"')
        if self.kind == "ordinal" and (len(self.classes) < 2 or self.positive in ("", self.classes[0])):
            raise StudyError(
                f"the levels of '{self.called}' are {', '.join(self.classes) or 'not named'}, yes from "
                f"'{self.positive}' on",
                expected="classes, lowest first, and as positive one of them above the lowest",
            )
        if len(set(self.classes)) < len(self.classes):
            raise StudyError(f"'{self.called}' names a class twice: {', '.join(self.classes)}")
        if self.positive and self.classes and self.positive not in self.classes:
            raise StudyError(
                f"the positive class '{self.positive}' of '{self.called}' is none of its classes",
                do=nearest(self.positive, self.classes),
            )
        return self


class EligibilitySection(_Section):
    """One rule of who is in the study; rules apply in the order in which they stand."""

    section: ClassVar[str] = "eligibility"
    name: str = Field(description="The reason, in the words of the flow chart.")
    column: str = Field("", description="Column of the cohort file that the rule looks at.")
    exclude: tuple[str, ...] = Field((), description="Values that leave a case out.")
    keep: tuple[str, ...] = Field((), description="Values that a case must have; an empty cell has none.")
    low: float | None = Field(None, description="Cases below are left out.")
    high: float | None = Field(None, description="Cases above are left out.")
    first_by: str = Field("", description="Column of dates: only a patient's first case stays.")
    input: str = Field("", description="A table input, for most_missing.")
    most_missing: Fraction | None = Field(None, description="Cases with a larger share of empty cells are left out.")


class ImageInput(_Section):
    """A picture of each patient, or several of one view, and the encoder that reads it."""

    section: ClassVar[str] = "inputs.<name>"
    kind: Literal["image"] = Field("image", description="'image': a path in each row; 'table': columns, below.")
    column: str = Field("", description="Column with the paths; the input's own name if empty.")
    size: Annotated[int, Field(ge=16, le=2048)] = Field(224, description="Side of the square, pixels.")
    fit: Literal["letterbox", "stretch"] = Field(
        "letterbox", description="'letterbox' keeps the proportions and fills up with black; 'stretch' does not."
    )
    channels: Literal[1, 3] = Field(1, description="1 for grey films, 3 where colour means something.")
    pictures: Annotated[int, Field(ge=1, le=32)] = Field(
        1, description="How many pictures of this view a case has at most; more than one are pooled."
    )
    pool: Literal["mean", "attention"] = Field(
        "mean", description="How several pictures of a view are joined; 'attention' learns which count."
    )
    share: str = Field("", description="An input above whose encoder this one uses too.")
    masked: bool = Field(
        False,
        description="Only what lies inside the ultrasound region is shown to the network: declared in regions.csv, or "
        "in the DICOM file; a picture without one is refused.",
    )
    bar_high: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Turns colours into values by the colour bar of regions.csv: so much, in its unit, is full scale. "
        "0 leaves colours as they are; needs channels = 3.",
    )
    encoder: str = Field("image_timm", description="A registered encoder.")
    network: str = Field("resnet18", description="For image_timm: any timm network.")
    weights: str = Field("none", description="'imagenet', 'none', or the path of a safetensors file.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further options of the encoder.")


class TableInput(_Section):
    """Columns of the cohort file: laboratory values, clinical findings."""

    section: ClassVar[str] = "inputs.<name>"
    kind: Literal["table"] = Field("table", description='Must be said: kind = "table".')
    columns: tuple[str, ...] = Field((), description="The columns; all of the column dictionary if left out.")
    dictionary: str = Field("columns.csv", description="Kinds, units and limits of the columns; beside the cohort.")
    imputation: Literal["median", "knn"] = Field(
        "median", description="What stands in for a missing number, from training patients; it is marked as missing."
    )
    neighbours: Positive = Field(5, description="For knn: how many training patients stand in.")
    screen: Annotated[int, Field(ge=0)] = Field(
        0, description="Keep so many columns, chosen by p anew in every fold; 0 keeps all."
    )
    allowed: tuple[str, ...] = Field((), description="Columns that may tell the outcome nearly alone: you declare why.")
    encoder: str = Field("table_mlp", description="A registered encoder of tables.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further options of the encoder.")


class ConnectomeInput(_Section):
    """A matrix of connections between brain regions, or time courses of the regions. Prepared inside the fold alone."""

    section: ClassVar[str] = "inputs.<name>"
    kind: Literal["connectome"] = Field("connectome", description='Must be said: kind = "connectome".')
    column: str = Field("", description="Column with the paths; the input's own name if empty.")
    holds: Literal["matrix", "fisher_z", "timeseries"] = Field(
        "matrix", description="What the files hold: correlations, Fisher's z of them, or one row a time point."
    )
    measure: Literal["correlation", "partial correlation"] = Field(
        "correlation", description="What is made of time courses."
    )
    space: Literal["fisher_z", "tangent", "correlation"] = Field(
        "fisher_z", description="Where edges live; 'tangent' at the mean of the training patients."
    )
    regions: str = Field("", description="File with the names of the regions, beside the cohort; may name networks.")
    harmonise: str = Field("", description="Column of sites whose effect ComBat takes out, learned in the fold.")
    keep: tuple[str, ...] = Field((), description="Columns whose effect ComBat keeps; never the outcome.")
    confounds: tuple[str, ...] = Field((), description="Columns that are regressed out: age, sex, motion.")
    unseen: Literal["refuse", "pass"] = Field(
        "pass", description="A site that no training patient has: refuse, or pass on as it is and say so."
    )
    motion: str = Field("", description="Column of head motion (mean framewise displacement, mm).")
    most_motion: float | None = Field(None, description="Cases that moved more are refused.")
    encoder: str = Field("connectome_dense", description="A registered encoder of connectomes.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further options of the encoder.")


ONE_A_STUDY = ("column", "holds", "measure", "regions", "motion", "most_motion")
"""Keys of an input of connectomes that no arm may replace: files are read, and looked at, once."""


def _kind_of(keys: Any) -> str:
    kind = keys.get("kind", "image") if isinstance(keys, Mapping) else getattr(keys, "kind", "image")
    if kind not in INPUT_KINDS:
        raise StudyError(f"unknown kind of input '{kind}'", do=nearest(str(kind), INPUT_KINDS))
    return str(kind)


AnyInput = ImageInput | TableInput | ConnectomeInput
INPUT_KINDS: dict[str, type[ImageInput] | type[TableInput] | type[ConnectomeInput]] = {
    "image": ImageInput,
    "table": TableInput,
    "connectome": ConnectomeInput,
}
Input = Annotated[
    Annotated[ImageInput, Tag("image")]
    | Annotated[TableInput, Tag("table")]
    | Annotated[ConnectomeInput, Tag("connectome")],
    Discriminator(_kind_of),
]


class NetworkSection(_Section):
    """How the inputs are joined and read out."""

    section: ClassVar[str] = "network"
    fusion: Literal["concat", "gated", "mean"] = Field("concat", description="How the inputs' embeddings are joined.")
    modality_dropout: Fraction = Field(
        0.3, description="How often training takes an input away, so that a patient who lacks it gets an answer."
    )
    head: Literal["softmax", "two_sigmoid"] = Field(
        "softmax", description="'two_sigmoid' is the literal reading of Liang & Zheng, kept for comparison."
    )
    shared: Annotated[int, Field(ge=0)] = Field(
        0, description="Units of a layer after fusion that all targets share; 0: none."
    )
    norm: Literal["layer", "batch", "none"] = Field("layer", description="Norm of that shared layer.")
    hidden: Annotated[int, Field(ge=0)] = Field(0, description="Units of a hidden layer before the outputs; 0: none.")
    dropout: Fraction = Field(0.0, description="Share dropped right before the outputs.")
    head_norm: bool = Field(False, description="Batch norm on the outputs, as the code of He et al. has it.")


class TrainingSection(_Section):
    """What every stage does unless it says otherwise."""

    section: ClassVar[str] = "training"
    thaw: Literal["all", "head"] | Annotated[int, Field(ge=0)] = Field(
        "all", description="'all', 'head', or how many of the last blocks learn."
    )
    epochs: Positive = Field(20, description="Epochs at most; the best on the inner part is kept.")
    batch: Positive = Field(32, description="Cases a step.")
    rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Learning rate of the head.")
    encoder_rate: Annotated[float, Field(gt=0)] = Field(3e-4, description="Learning rate of thawed blocks.")
    optimizer: Literal["adamw", "adam", "sgd"] = Field("adamw", description="'sgd' is with Nesterov momentum 0.9.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="Not applied to biases and norm layers.")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        "cosine", description="'cosine' falls to 0 over the stage; 'plateau' falls when the inner part stalls."
    )
    plateau_patience: Positive = Field(6, description="For plateau: epochs without gain before the rates fall.")
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="For plateau: what the rates are multiplied with."
    )
    monitor: Literal["loss", "auc", "accuracy"] = Field("loss", description="What the inner part decides on.")
    patience: Annotated[int, Field(ge=0)] = Field(0, description="Epochs without gain before stopping; 0: never.")
    class_weights: bool = Field(False, description="Weigh the rarer class up in the loss.")
    label_smoothing: Fraction = Field(0.0, description="Share of each label spread evenly over the classes.")
    averaging: Fraction = Field(0.0, description="Decay of the exponential average of the weights; 0: none.")
    norm: Literal["learn", "frozen"] = Field(
        "learn", description="'frozen' keeps the norm layers' statistics of thawed blocks as they were transferred."
    )
    corrupt: Fraction = Field(0.0, description="Share of a connectome's edges set to 0 in training.")
    target_weights: Literal["equal", "uncertainty"] = Field(
        "equal", description="How the losses of several targets are weighed; 'uncertainty' learns it."
    )


class StageSection(_Section):
    """One stage of the transfer chain."""

    section: ClassVar[str] = "stages"
    name: str = Field(description="Its name, by which arms choose it.")
    cohort: str = Field("", description="Another cohort file to learn from first; empty: the study's own patients.")
    encoder: str = Field(
        "", description="Instead of learning: a file of encoders/ that a stage of another run has left behind."
    )
    task: Literal["target", "multilabel", "reconstruct"] = Field(
        "target",
        description="One outcome; several findings that do not exclude each other; or, without any label, the input "
        "itself (an auto-encoder of connectomes, denoising with corrupt).",
    )
    columns: tuple[str, ...] = Field((), description="For multilabel: its 0/1 columns.")
    column: str = Field("", description="For a target stage on another cohort: its outcome column.")
    picture: str = Field(
        "",
        description="Column of that cohort whose pictures one encoder learns from, to be handed to several inputs of "
        "the study; if empty, that cohort has the study's own columns.",
    )
    inputs: tuple[str, ...] = Field((), description="With picture: who gets that encoder; all pictures if left out.")
    thaw: Literal["all", "head"] | Annotated[int, Field(ge=0)] | None = None
    epochs: Positive | None = None
    batch: Positive | None = None
    rate: float | None = None
    encoder_rate: float | None = None
    optimizer: Literal["adamw", "adam", "sgd"] | None = None
    weight_decay: float | None = None
    schedule: Literal["cosine", "plateau", "constant"] | None = None
    plateau_patience: Positive | None = None
    plateau_factor: float | None = None
    monitor: Literal["loss", "auc", "accuracy"] | None = None
    patience: int | None = None
    class_weights: bool | None = None
    label_smoothing: Fraction | None = None
    averaging: Fraction | None = None
    norm: Literal["learn", "frozen"] | None = None
    corrupt: Fraction | None = None
    target_weights: Literal["equal", "uncertainty"] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether it does not learn from the study's own patients."""
        return bool(self.cohort or self.encoder)

    def training(self, defaults: TrainingSection) -> TrainingSection:
        """Return the stage's full settings: its own over the study's defaults."""
        own = {k: v for k in TrainingSection.model_fields if (v := getattr(self, k)) is not None}
        return TrainingSection.model_validate({**defaults.model_dump(), **own})

    @model_validator(mode="after")
    def _task_has_columns(self) -> StageSection:
        if self.encoder:
            if self.cohort or self.column or self.columns or self.picture or self.task != "target":
                raise StudyError(
                    f"stage '{self.name}' takes an encoder that is there already, and is to learn one",
                    do="leave out cohort, column, columns and task, or encoder",
                )
            return self
        if self.task == "multilabel" and not self.columns:
            raise StudyError(
                f"stage '{self.name}' is multilabel but names no columns",
                do='add columns = ["Effusion", ...]',
            )
        if self.task != "target" and not self.cohort:
            raise StudyError(
                f"stage '{self.name}' is {self.task} but names no cohort",
                expected="the study's own patients to teach the targets alone",
                do='add cohort = "..." or leave out task',
            )
        if (self.picture and not self.cohort) or (self.inputs and not self.picture):
            raise StudyError(
                f"stage '{self.name}' names {'a picture column' if self.picture else 'inputs'}, but no "
                f"{'other cohort' if self.picture else 'picture column of another cohort'} to learn from",
                do='add cohort = "..." and picture = "...", or leave both out',
            )
        if self.task == "target" and self.cohort and not self.column:
            raise StudyError(
                f"stage '{self.name}' learns from another cohort but does not say what",
                do='add column = "..." or task = "multilabel" with columns = [...]',
            )
        return self


class ArmSection(_Section):
    """One model to be compared: a network that differs from the proposed one, a model of tables, or a late fusion."""

    section: ClassVar[str] = "arms"
    name: Annotated[str, Field(pattern=r"^[\w .,:()+/-]{1,60}$")] = Field(
        description="Its name in files and reports; the first arm is the proposed one."
    )
    only: tuple[str, ...] = Field((), description="The inputs that it sees; all if left out.")
    model: str = Field(
        "", description="A model of one table or connectome instead of a network: svm, random_forest, cpm ..."
    )
    combine: tuple[str, ...] = Field(
        (), description="Late fusion: names of arms above, joined by a regression fitted on inner predictions."
    )
    network: dict[str, Any] = Field(default_factory=dict, description="Keys of [network] to replace.")
    inputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Keys of [inputs.<name>] to replace.")
    stages: tuple[str, ...] | None = Field(None, description="Names of the stages it goes through; all if left out.")
    single: bool = Field(False, description="Each target is learned by a network of its own.")
    flaws: tuple[str, ...] = Field((), description="Known flaws of a literal reading, printed in the report.")

    @model_validator(mode="after")
    def _one_kind(self) -> ArmSection:
        NetworkSection.model_validate(self.network)
        if self.model and self.combine:
            raise StudyError(f"arm '{self.name}' has both a model and arms to combine", do="choose one of the two")
        if len(self.combine) == 1:
            raise StudyError(f"arm '{self.name}' combines one arm", expected="two at least")
        return self


class GridSection(_Section):
    """Every network on every view and on all of them, pre-trained and from scratch: an arm each."""

    section: ClassVar[str] = "grid"
    networks: tuple[str, ...] = Field((), description="Networks of timm; the inputs' own if left out.")
    views: tuple[str, ...] = Field((), description="Inputs of pictures, each alone; all of them if left out.")
    fused: bool = Field(True, description="All those views together, too.")
    weights: str = Field("imagenet", description="What 'pre-trained' starts from, before its stages.")
    stages: tuple[str, ...] = Field((), description="Stages that only 'pre-trained' goes through.")
    sizes: dict[str, Annotated[int, Field(ge=16, le=2048)]] = Field(
        default_factory=dict, description="Side of the square by network, where it differs: { efficientnet_b7 = 299 }."
    )


class OperatingPointSection(_Section):
    """From which probability on the answer is yes."""

    section: ClassVar[str] = "validation.operating_point"
    rule: Literal["youden", "sensitivity", "specificity", "net_benefit", "fixed"] = Field(
        "youden", description="How it is chosen on inner data; 'fixed' is laid down beforehand."
    )
    value: Fraction | None = Field(None, description="Target sensitivity or specificity, or threshold probability.")

    @model_validator(mode="after")
    def _rule_has_value(self) -> OperatingPointSection:
        if self.rule != "youden" and self.value is None:
            raise StudyError(
                f"the operating point rule '{self.rule}' has no value",
                do=f'write operating_point = {{ rule = "{self.rule}", value = 0.95 }} with your own figure',
            )
        return self


class SubgroupSection(_Section):
    """A column by whose values every figure is given once more."""

    section: ClassVar[str] = "validation.subgroups"
    column: str = Field(description="Column of the cohort file.")
    cuts: tuple[float, ...] = Field((), description="For numbers: where one group ends and the next begins.")


class ValidationSection(_Section):
    """How the patients are divided and what is estimated."""

    section: ClassVar[str] = "validation"
    folds: Annotated[int, Field(ge=2)] = Field(10, description="Parts that the patients are dealt into.")
    repeats: Positive = Field(1, description="How often the patients are dealt anew.")
    inner: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.15, description="Part of the training patients decided on."
    )
    holdout: Annotated[float, Field(ge=0.0, lt=0.9)] = Field(
        0.0, description="Part of the patients kept aside and opened once, at the end."
    )
    by: Literal["patient", "site", "leave_one_site_out"] = Field(
        "patient",
        description="What a test fold never divides; a patient never is. 'leave_one_site_out' sets the folds.",
    )
    each_site: bool = Field(
        False, description="Besides the folds, fit the first arm once more for each site, without its patients."
    )
    family: str = Field("", description="Column whose patients stay together: twins, siblings.")
    operating_point: OperatingPointSection = Field(
        OperatingPointSection(), description="From which probability on the answer is yes: a table, below."
    )
    calibration: Literal["temperature", "platt", "none"] = Field(
        "temperature", description="How probabilities are mended on inner data."
    )
    bootstraps: Annotated[int, Field(ge=100)] = Field(1000, description="Draws of patients for intervals.")
    net_benefit_at: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="Threshold probability of the net benefit in the tables; the prevalence if left out.",
    )
    subgroups: tuple[SubgroupSection, ...] = Field(
        (), description='Columns by which results are split: "sex", { column = "age", cuts = [28, 32] }.'
    )
    permutations: Annotated[int, Field(ge=0)] = Field(
        0,
        description="How often the labels are permuted and the first arm fitted anew, for a p of its AUC; 0: never. "
        "Only where its folds can be trained together: connectomes and tables in small networks.",
    )
    learning_curve: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field(
        (),
        description="Shares of the training patients that the first arm is fitted on too: [0.5, 0.75]. Likewise.",
    )
    conformal_alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = Field(
        0.1, description="Share of each class that a prediction set may miss."
    )
    expected_auc: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        0.8, description="What you expect, for the sample size that `check` prints."
    )

    @field_validator("subgroups", mode="before")
    @classmethod
    def _short_subgroups(cls, value: Any) -> Any:
        return [{"column": v} if isinstance(v, str) else v for v in value]


class ExternalSection(_Section):
    """Other patients, opened once after every decision is frozen."""

    section: ClassVar[str] = "external"
    name: Annotated[str, Field(pattern=r"^[\w-]{1,40}$")] = Field(description="Its name; also that of its folder.")
    cohort: str = Field(description="Their cohort file.")
    readers: str = Field("", description="A file of readers' ratings of these cases.")


class AugmentSection(_Section):
    """Random changes of training pictures: clinically safe by default."""

    section: ClassVar[str] = "augment"
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(7.0, description="Degrees, at most, either way.")
    scale: Fraction = Field(0.08, description="Relative, at most, either way.")
    shift: Fraction = Field(0.05, description="Part of the side, at most, either way.")
    exposure: Fraction = Field(0.15, description="Brightness, contrast and gamma, at most, either way.")
    noise: Fraction = Field(0.0, description="Standard deviation of added noise, part of the full range.")
    horizontal_flip: bool = Field(False, description="Moves the heart to the other side: off unless asked for.")
    variants: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Variants a picture of which frozen layers' outputs are kept."
    )
    test_time: Annotated[int, Field(ge=1, le=16)] = Field(1, description="Views averaged at prediction; 1: the film.")


class ExplainSection(_Section):
    """What is drawn of where the networks looked."""

    section: ClassVar[str] = "explain"
    cases: Annotated[int, Field(ge=0)] = Field(8, description="Heat maps in the report.")
    sanity_cases: Annotated[int, Field(ge=0)] = Field(24, description="Cases for the sanity checks; 0: none.")
    layer: Positive = Field(1, description="Heat maps are taken after the last block (1), the one below (2) ...")
    masks: str = Field("", description="Column with lesion masks, for the pointing game.")
    view: str = Field(
        "",
        description="The input whose (first) picture the masks were drawn on; the first input of pictures if empty.",
    )


class StudyFile(_Section):
    """A whole study file, presets applied."""

    title: str = Field("", description="Title of the report.")
    system: str = Field("", description="The published system whose figures are printed beside yours.")
    preset: Literal["quick", "standard", "thorough", "paper"] = Field(
        "standard", description="What all keys that the file leaves out are set to; below."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        1024, description="All that is drawn by chance follows from it."
    )
    cohort: CohortSection = CohortSection()
    target: tuple[TargetSection, ...] = Field(description="What is to be told, one table or several.", min_length=1)
    eligibility: tuple[EligibilitySection, ...] = Field((), description="Rules of who is in the study.")
    inputs: dict[str, Input] = Field(default_factory=dict, description="Pictures found in the cohort if left out.")
    network: NetworkSection = NetworkSection()
    training: TrainingSection = TrainingSection()
    stages: tuple[StageSection, ...] = (StageSection(name="diagnosis"),)
    arms: tuple[ArmSection, ...] = (ArmSection(name="proposed"),)
    grid: GridSection | None = Field(None, description="An ablation by network, view and start, as further arms.")
    validation: ValidationSection = ValidationSection()
    external: tuple[ExternalSection, ...] = Field((), description="Cohorts of other patients.")
    augment: AugmentSection = AugmentSection()
    explain: ExplainSection = ExplainSection()

    @field_validator("target", mode="before")
    @classmethod
    def _short_target(cls, value: Any) -> Any:
        listed = list(value) if isinstance(value, list | tuple) else [value]
        return [{"column": one} if isinstance(one, str) else one for one in listed]

    @field_validator("system")
    @classmethod
    def _known_system(cls, value: str) -> str:
        if value and value not in SYSTEMS:
            raise StudyError(f"unknown system '{value}'", do=nearest(value, SYSTEMS))
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> StudyFile:
        for kind, names in (
            ("stage", [s.name for s in self.stages]),
            ("arm", [a.name for a in self.arms]),
            ("target", [t.called for t in self.target]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise StudyError(f"two {kind}s are called '{name}'", do="give each its own name")
        known = [s.name for s in self.stages]
        for arm in self.arms:
            for name in arm.stages or ():
                if name not in known:
                    raise StudyError(f"arm '{arm.name}' names an unknown stage '{name}'", do=nearest(name, known))
            if arm.stages is not None and not any(not s.elsewhere for s in self.stages_of(arm)):
                raise StudyError(
                    f"arm '{arm.name}' has no stage on the study's own patients", do="add one to its stages"
                )
            self._check_arm(arm)
        for stage in self.stages:
            for name in stage.inputs:
                if self.inputs and name not in self.inputs:
                    raise StudyError(
                        f"stage '{stage.name}' names an unknown input '{name}'", do=nearest(name, self.inputs)
                    )
        self._check_shares()
        self._check_grid(known)
        if not self.stages or self.stages[-1].elsewhere or self.stages[-1].task != "target":
            raise StudyError(
                "the last stage is not about the study's own target",
                do='let the last [[stages]] have no cohort and task = "target"',
            )
        return self

    def _check_shares(self) -> None:
        """An encoder can be shared where nothing but the pictures differs."""
        alike = ("size", "channels", "encoder", "network", "weights", "options", "fit")
        above: dict[str, ImageInput] = {}
        for name, section in self.inputs.items():
            if not isinstance(section, ImageInput):
                continue
            if section.bar_high and section.channels != 3:
                raise StudyError(f"input '{name}' turns colours into values but has one channel", do="set channels = 3")
            if section.share:
                other = above.get(section.share)
                if other is None or other.share:
                    raise StudyError(
                        f"input '{name}' shares the encoder of '{section.share}'",
                        expected="an input of pictures above it that has an encoder of its own",
                    )
                odd = [key for key in alike if getattr(section, key) != getattr(other, key)]
                if odd:
                    raise StudyError(
                        f"input '{name}' shares the encoder of '{section.share}' but has another {odd[0]}",
                        expected=f"the same {', '.join(alike)}",
                    )
            above[name] = section

    def _check_grid(self, stages: list[str]) -> None:
        grid = self.grid
        for name in grid.stages if grid else ():
            if name not in stages:
                raise StudyError(f"the grid names an unknown stage '{name}'", do=nearest(name, stages))
        pictures = [name for name, section in self.inputs.items() if section.kind == "image"]
        for name in grid.views if grid and self.inputs else ():
            if name not in pictures:
                raise StudyError(f"the grid names '{name}', which is no input of pictures", do=nearest(name, pictures))

    def _check_arm(self, arm: ArmSection) -> None:
        for name in (*arm.inputs, *arm.only):
            if self.inputs and name not in self.inputs:
                raise StudyError(f"arm '{arm.name}' names an unknown input '{name}'", do=nearest(name, self.inputs))
            section, keys = self.inputs.get(name), arm.inputs.get(name, {})
            otherwise = [key for key in keys if key in ONE_A_STUDY] if isinstance(section, ConnectomeInput) else []
            if otherwise:
                raise StudyError(
                    f"arm '{arm.name}' replaces {otherwise[0]} of input '{name}', which is read once a study",
                    do="make it an input of its own, and choose it with only",
                )
        names = [a.name for a in self.arms]
        for name in arm.combine:
            if name not in names[: names.index(arm.name)]:
                raise StudyError(
                    f"arm '{arm.name}' combines '{name}', which no arm above it is called", do=nearest(name, names)
                )
        if arm is self.arms[0] and (arm.model or arm.combine):
            raise StudyError(
                f"the first arm '{arm.name}' is no network",
                expected="the proposed network first: it is what is explained and bundled",
            )
        if arm is self.arms[0] and arm.single and len(self.target) > 1:
            raise StudyError(
                f"the first arm '{arm.name}' has a network for each target",
                expected="the proposed network to tell them all: it is what is explained and bundled",
            )
        seen = self.inputs_of(arm)
        if arm.model and [section.kind for section in seen.values()] not in (["table"], ["connectome"]):
            raise StudyError(
                f"arm '{arm.name}' is a model of one table or connectome but sees {', '.join(seen) or 'none'}",
                do='name the input with only = ["..."]',
            )
        if not self.inputs:
            # they will be found in the cohort: pictures
            for keys in arm.inputs.values():
                ImageInput.model_validate(keys)

    def stages_of(self, arm: ArmSection) -> tuple[StageSection, ...]:
        """Return the stages an arm goes through, in the study's order."""
        return tuple(s for s in self.stages if arm.stages is None or s.name in arm.stages)

    def inputs_of(self, arm: ArmSection) -> dict[str, AnyInput]:
        """Return the inputs that an arm sees: the study's, with the arm's replacements."""
        numbers = [[n for n, s in self.inputs.items() if s.kind == kind] for kind in ("table", "connectome")]
        seen = arm.only or tuple((numbers[0] or numbers[1]) if arm.model else self.inputs)
        found = {}
        for name, section in self.inputs.items():
            if name in seen:
                merged = {**section.model_dump(), **arm.inputs.get(name, {})}
                if merged["kind"] != section.kind:
                    raise StudyError(
                        f"arm '{arm.name}' makes input '{name}' a {merged['kind']}", expected=f"kind = '{section.kind}'"
                    )
                found[name] = type(section).model_validate(merged)
        return found

    def connectomes(self, name: str) -> list[ConnectomeInput]:
        """Return an input of connectomes as the study and its arms prepare it; nothing if it is of another kind."""
        own = [self.inputs[name], *(found[name] for arm in self.arms if name in (found := self.inputs_of(arm)))]
        return [section for section in own if isinstance(section, ConnectomeInput)]

    @model_validator(mode="after")
    def _connectomes_to_reconstruct(self) -> StudyFile:
        if all(section.kind != "connectome" for section in self.inputs.values()):
            for stage in self.stages:
                if stage.task == "reconstruct":
                    raise StudyError(f"stage '{stage.name}' reconstructs connectomes, but no input holds them")
        return self

    @model_validator(mode="after")
    def _no_answer_in_the_inputs(self) -> StudyFile:
        answers = {target.column for target in self.target}
        for name in self.inputs:
            for section in self.connectomes(name):
                for key in ("harmonise", "keep", "confounds"):
                    value = getattr(section, key)
                    for column in (value,) if isinstance(value, str) else value:
                        if column in answers:
                            raise StudyError(
                                f"{key} of input '{name}' names the outcome '{column}'",
                                expected="columns that are known of a new patient before the answer is",
                            )
        return self

    def network_of(self, arm: ArmSection) -> NetworkSection:
        """Return how an arm joins its inputs: the study's settings, with the arm's replacements."""
        return NetworkSection.model_validate({**self.network.model_dump(), **arm.network})


def read_study(path: Path, changes: Mapping[str, Any] | None = None) -> StudyFile:
    """Read a study file and apply its preset.

    Args:
        path: A study.toml.
        changes: Laid over the file, in its own form: {"inputs": {"film": {"size": 150}}}.

    Returns:
        The typed study; keys that the file leaves out come from the preset, then from the defaults.

    Raises:
        StudyError: The file is missing, is no TOML, or holds an unknown key or an impossible value.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"cannot be read as text ({error})", expected="a study.toml in UTF-8", where=str(path)
        ) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"is not valid TOML: {error}", do="mend the line named", where=str(path)) from error
    try:
        return parse_study(_merge(document, changes or {}))
    except StudyError as error:
        line = _line_of(text, error.key) if isinstance(error, _UnknownKey) else ""
        raise StudyError(
            error.came, expected=error.expected, do=error.do, where=error.where or f"{path}{line}"
        ) from None


def parse_change(text: str) -> dict[str, Any]:
    """Read one change of a study from a command line: `validation.folds=5`, `inputs.film.network=vgg16`.

    Raises:
        StudyError: There is no equals sign in it, or no key before it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise StudyError(f"'{text}' changes nothing", expected="key=value, for example validation.folds=5")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def merge_changes(changes: Iterable[str]) -> dict[str, Any]:
    """Read several changes; a later one wins."""
    merged: dict[str, Any] = {}
    for change in changes:
        merged = _merge(merged, parse_change(change))
    return merged


def starter_study(suggested: Mapping[str, Any], title: str) -> str:
    """Return the text of a study file to start from.

    Args:
        suggested: What an importer knows: "target", "classes" and "positive", or "targets" (several, or scores: a table
            each); and where it applies "system", "two_classes", "images" (input -> column), "tables" (input -> columns
            and dictionary), "connectomes" (input -> column, regions, harmonise, confounds), "masks" (a column) and
            "findings" (0/1 columns that another study can learn from first).
        title: Title of the study.
    """
    document: dict[str, Any] = {"title": title, "preset": "standard", "seed": 1024}
    if "system" in suggested:
        document["system"] = suggested["system"]
    if "two_classes" in suggested:
        document["cohort"] = {"two_classes": suggested["two_classes"]}
    text = "# Every key but the target is optional; all of them stand in docs/reference/study.md.\n"
    text += tomli_w.dumps(document)
    if "targets" in suggested:
        for target in suggested["targets"]:
            text += "\n[[target]]\n" + "".join(_starter_target(target))
    else:
        target = {"column": suggested["target"], "classes": list(suggested["classes"])}
        target |= {"positive": suggested["positive"]} if "positive" in suggested else {}
        text += "\n" + tomli_w.dumps({"target": target})
    images = suggested.get("images", {} if "tables" in suggested else {"film": ""})
    for name, column in images.items():
        named = f"column = {json.dumps(column)}\n" if column not in ("", name) else ""
        text += _STARTER_IMAGE.format(name=name, column=named)
    for name, connectome in suggested.get("connectomes", {}).items():
        text += "".join(_starter_connectome(name, connectome))
    if "connectomes" in suggested:
        text += _STARTER_CONNECTOMES
    for name, table in suggested.get("tables", {}).items():
        keys = {"kind": "table", "columns": list(table["columns"]), "encoder": "table_mlp"}
        if table["dictionary"] != TableInput.model_fields["dictionary"].default:
            keys["dictionary"] = table["dictionary"]
        text += "\n" + tomli_w.dumps({"inputs": {name: keys}})
    if "masks" in suggested:
        text += "\n" + tomli_w.dumps({"explain": {"masks": suggested["masks"]}})
    if "findings" in suggested:
        columns = json.dumps(list(suggested["findings"]))
        text += _STARTER_SOURCE.format(columns=columns)
    return text


def _starter_target(target: Mapping[str, Any]) -> Iterator[str]:
    """The lines of one of several targets; classes stand in alphabetical order, so the positive one is spelled out."""
    yield tomli_w.dumps(target)
    if target.get("kind") == "score":
        yield "# below = 85.0  # or above = ...: where yes begins. It is yours to declare; no run without it.\n"
    else:
        yield f"positive = {json.dumps(target['classes'][-1])}  # the class to be detected: the last in the alphabet\n"


def _starter_connectome(name: str, connectome: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a connectome; what could be adjusted for stands there as a comment: it is the owner's decision."""
    yield f"\n[inputs.{name}]\n" + 'kind = "connectome"\n'
    if connectome["column"] != name:
        yield f"column = {json.dumps(connectome['column'])}\n"
    yield f"regions = {json.dumps(connectome['regions'])}\n" + 'encoder = "connectome_dense"\n'
    yield 'options = { widths = [16], norm = "none", dropout = 0.5 }\n'
    if connectome["harmonise"]:
        yield f"# harmonise = {json.dumps(connectome['harmonise'])}  # ComBat, learned anew in every fold\n"
    if connectome["confounds"]:
        yield f"# confounds = {json.dumps(list(connectome['confounds']))}  # regressed out, likewise\n"


_STARTER_IMAGE = """
[inputs.{name}]
{column}size = 224
encoder = "image_timm"
network = "resnet18"  # any network of timm
weights = "none"      # "imagenet" downloads timm's weights; or the path of a safetensors file
"""
_STARTER_CONNECTOMES = """
[network]
shared = 8
norm = "none"
modality_dropout = 0.0  # nobody is taken to lack an input, so that all folds are trained together

# thousands of edges, few patients: plain gradient descent and strong weight decay, as good as a regression on ABIDE
[training]
optimizer = "sgd"
epochs = 30
rate = 3e-3
encoder_rate = 3e-3
weight_decay = 0.1
"""
_STARTER_SOURCE = """
# To learn from these films first, put this into the study of your own patients:
# [[stages]]
# name = "adult films"
# cohort = "THIS FOLDER/cohort.csv"
# task = "multilabel"
# columns = {columns}
"""


def parse_study(document: Mapping[str, Any]) -> StudyFile:
    """Build a study from the mapping that a TOML file holds.

    Raises:
        StudyError: An unknown key or an impossible value.
    """
    preset = document.get("preset", "standard")
    if preset not in PRESETS:
        raise StudyError(f"unknown preset '{preset}'", do=nearest(str(preset), PRESETS))
    merged = _merge(preset_document(preset, str(document.get("system", ""))), document)
    try:
        return StudyFile.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function"))
        came = "is missing" if first["type"] == "missing" else f"is {first['input']!r}"
        raise StudyError(f"'{place}' {came}", expected=first["msg"]) from error


def preset_document(preset: str, system: str) -> dict[str, Any]:
    """Return the keys that a preset sets.

    Raises:
        StudyError: `paper` without a system whose paper it could be.
    """
    if preset != "paper":
        return _builtin(f"{preset}.toml")
    if system not in SYSTEMS:
        raise StudyError(
            'preset = "paper" does not say whose paper',
            expected=f"system = one of {', '.join(SYSTEMS)}",
            do="add the key, or choose the preset quick, standard or thorough",
        )
    return _builtin(SYSTEMS[system])


def write_study(study: StudyFile, path: Path) -> None:
    """Write a study with every key spelled out; `read_study` gives it back unchanged."""
    write_atomically(path, tomli_w.dumps(_without_none(study.model_dump(mode="json"))))


def study_schema() -> str:
    """Return the JSON schema of the study file, for editors."""
    schema = StudyFile.model_json_schema()
    # The typed model has the preset applied; a file may leave out what the preset gives, and may shorten `target`.
    several = schema["properties"]["target"]
    schema["properties"]["target"] = {"anyOf": [{"type": "string"}, several["items"], several]}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def builtin_study_text(name: str) -> str:
    """Return the text of a study file that ships with the package."""
    return resources.files("tenfold").joinpath("studies", name).read_text("utf-8")


def _builtin(name: str) -> dict[str, Any]:
    return tomllib.loads(builtin_study_text(name))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one document over another: tables merge, everything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        # an operating point is one decision: a rule without its own value must not inherit another's
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "operating_point":
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def _line_of(text: str, key: str) -> str:
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf'\s*\[*"?(?:[\w<>.-]+\.)?{re.escape(key)}"?\s*[\].=]', line):
            return f" line {number}"
    return ""
