"""The predictor: raw film in, calibrated probability and decision out.

It must not know how the weights were fitted, nor explain anything: its networks and prepared films are
public, so that others can.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from tenfold.bundle.seal import CARD_FILE, image_mark, open_sealed, patient_mark, read_sealed
from tenfold.errors import BundleError, ImageError, Refusal, nearest
from tenfold.modalities import MODALITIES
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.network import Network
from tenfold.network.views import MOST_VIEWS, view
from tenfold.types import Calibration, FloatArray, OperatingPoint, finite_or_none

Film = str | Path
_MISFITS = (Refusal, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """What the bundle says of one case.

    Attributes:
        case: Name of the case.
        probabilities: Class -> calibrated probability, the mean over the models; empty without a result.
        decision: The class decided for; empty where there is no result.
        threshold: From this probability on the positive class is decided for; NaN where the likeliest wins.
        spread: Lowest and highest probability of the positive class (or, without one, of the class decided
            for) among the models. It shows how far the models disagree; it is not a confidence interval.
        error: Why there is no result; empty where there is one.
    """

    case: str
    probabilities: Mapping[str, float]
    decision: str
    threshold: float
    spread: tuple[float, float]
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON; `decision` is null where there is no result."""
        return {
            "case": self.case,
            "probabilities": dict(self.probabilities),
            "decision": self.decision or None,
            "threshold": finite_or_none(self.threshold),
            "spread": [finite_or_none(end) for end in self.spread],
            "error": self.error or None,
        }


def load(folder: str | Path, *, member: str | None = None, device: str = "cpu") -> Predictor:
    """Load a bundle, after every file of it was checked against its seal.

    Args:
        folder: The bundle.
        member: One model of it by name; by default all of them together.
        device: "cpu", "cuda", "cuda:1" ...

    Raises:
        BundleError: No bundle, tampered with, too new, or its parts do not fit; no such member or device.
    """
    place = Path(folder)
    facts = open_sealed(place)
    _check_device(device)
    try:
        return Predictor(place, facts, member, torch.device(device))
    except BundleError:
        raise
    # The seal holds, so it is not damage: whoever wrote this folder did not write a bundle.
    except _MISFITS as error:
        raise BundleError(
            f"the parts of this bundle do not fit together ({type(error).__name__}: {str(error)[:400]})",
            expected="a bundle as `tenfold run` writes it, with the network that its weights were fitted in",
            where=str(place),
        ) from error


class Predictor:
    """A loaded bundle. Make one with `load`.

    Attributes:
        target: What is predicted.
        classes: Class names, in the order of the probabilities.
        positive: The class that the operating point is about; empty where the likeliest class is the answer.
        operating_point: The frozen threshold and how it was chosen; None without a positive class.
        card: The model card, Markdown.
        facts: What was stored of the study: title, training n, evaluation, versions.
        digest: SHA-256 over the whole content.
        members: Names of the models in use.
        networks: The models, in evaluation, without gradients.
        calibrations: One a model.
        preparations: Input of the network -> preparation.
        views: Test-time views over whose logits the mean is taken.
        frozen: Input -> leading encoder steps whose weights all models share; they run once.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], member: str | None, device: torch.device) -> None:
        target, point = facts["target"], facts["operating_point"]
        self.target: str = target["name"]
        self.classes: tuple[str, ...] = tuple(target["classes"])
        self.positive: str = target["positive"]
        self.operating_point = None if point is None else OperatingPoint(**point)
        self.card: str = read_sealed(folder, facts, CARD_FILE).decode("utf-8")
        self.facts: dict[str, Any] = facts["facts"]
        self.digest: str = facts["digest"]
        self.views: int = facts["views"]
        chosen = _choose(facts["members"], member)
        self.members: tuple[str, ...] = tuple(m["name"] for m in chosen)
        self.calibrations = tuple(_calibration(m["calibration"]) for m in chosen)
        self.networks = _networks(folder, facts, chosen, device)
        self.preparations: dict[str, ImagePreparation] = {
            name: MODALITIES[encoder.modality].from_state(facts["preparations"][name])
            for name, encoder in self.networks[0].encoders.items()
        }
        self.frozen = {name: self._shared_steps(name) for name in self.preparations}
        self._device = device
        self._patients = frozenset(facts["training"]["patients"])
        self._images = frozenset(facts["training"]["images"])
        self._check()

    def _check(self) -> None:
        """Refuse facts that contradict each other."""
        if self.positive not in ("", *self.classes) or bool(self.positive) != (self.operating_point is not None):
            raise BundleError(f"the positive class {self.positive!r} and the operating point do not belong together")
        if not 1 <= self.views <= MOST_VIEWS:
            raise BundleError(f"{self.views} test-time views", expected=f"1 to {MOST_VIEWS}")
        head = self.networks[0].head_specs[self.target]
        if head.classes != self.classes or any(c.temperature <= 0 for c in self.calibrations):
            raise BundleError("the classes or the calibration do not belong to the network")

    def _shared_steps(self, name: str) -> int:
        """Count the leading encoder steps whose tensors are the very same memory in all models."""
        encoders = [network.encoders[name] for network in self.networks]
        blocks = zip(*(encoder.blocks for encoder in encoders), strict=True)
        same = [_same_memory(block) for block in blocks]
        if all(same) and _same_memory(encoders):
            return int(encoders[0].depth)
        return [*same, False].index(False)

    def trained_on_patients(self, patients: Sequence[str]) -> list[str]:
        """Return those patients who were in the study that this bundle comes from."""
        return [patient for patient in patients if patient_mark(patient) in self._patients]

    def trained_on_images(self, hashes: Sequence[str]) -> list[str]:
        """Return those SHA-256 file hashes that were in the study that this bundle comes from."""
        return [value for value in hashes if image_mark(value) in self._images]

    def prepare(self, film: Film | Mapping[str, Film]) -> dict[str, Pictures]:
        """Read and prepare the film or films of one case.

        Args:
            film: A path, or for a network of several inputs: input -> path.

        Returns:
            Input -> uint8 (channels, size, size).

        Raises:
            ImageError: A film is missing or cannot be read, or an input has no film.
        """
        films = film if isinstance(film, Mapping) else dict.fromkeys(list(self.preparations)[:1], film)
        self._check_inputs(films)
        return {name: p.apply(read_image(films[name])) for name, p in self.preparations.items()}

    def _check_inputs(self, given: Mapping[str, Any]) -> None:
        """Every input needs its film; one that the network does not know is a slip."""
        if set(given) != set(self.preparations):
            raise ImageError(
                f"films for {', '.join(given) or 'no input'}",
                expected=f"one for each input of this model: {', '.join(self.preparations)}",
            )

    def predict(
        self,
        films: Film | Sequence[Film] | Mapping[str, Sequence[Film]],
        *,
        cases: Sequence[str] | None = None,
        batch: int = 16,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Prediction]:
        """Predict cases from their films.

        Args:
            films: One path, a list of paths, or for a network of several inputs: input -> list of paths.
            cases: Names of the cases; by default the path of each one's first film.
            batch: Cases at a time.
            on_error: "raise" stops at the first film that cannot be read; "return" gives that case a
                prediction without a result, whose `error` says why, and goes on.

        Returns:
            One prediction a case, in the order given.

        Raises:
            ImageError: A film cannot be read, or an input has no film.
        """
        rows = self._rows(films)
        names = list(cases) if cases is not None else [str(next(iter(row.values()))) for row in rows]
        if len(names) != len(rows):
            raise ImageError(f"{len(names)} names for {len(rows)} cases", expected="one name a case")
        done: list[Prediction] = []
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            done += self._predict_batch(rows[part], names[part], on_error)
        return done

    def _rows(self, films: Film | Sequence[Film] | Mapping[str, Sequence[Film]]) -> list[dict[str, Film]]:
        """Bring the three ways of naming films into one: a mapping a case."""
        if isinstance(films, str | Path):
            films = [films]
        columns = films if isinstance(films, Mapping) else dict.fromkeys(list(self.preparations)[:1], films)
        self._check_inputs(columns)
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ImageError(f"lists of unequal length: {lengths}", expected="one film a case for every input")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _predict_batch(
        self, rows: Sequence[Mapping[str, Film]], names: Sequence[str], on_error: str
    ) -> Iterator[Prediction]:
        """Predict some cases; those without a readable film have no result."""
        prepared: dict[int, dict[str, Pictures]] = {}
        errors: dict[int, str] = {}
        for i, row in enumerate(rows):
            try:
                prepared[i] = self.prepare(row)
            except ImageError as error:
                if on_error == "raise":
                    raise
                errors[i] = str(error)
        probabilities = np.zeros((len(self.members), 0, len(self.classes)))
        if prepared:
            stacks = {name: np.stack([p[name] for p in prepared.values()]) for name in self.preparations}
            probabilities = self.member_probabilities(stacks)
        column = {i: k for k, i in enumerate(prepared)}
        for i, name in enumerate(names):
            yield (
                self._without_result(name, errors[i])
                if i in errors
                else self._prediction(name, probabilities[:, column[i]])
            )

    @property
    def _threshold(self) -> float:
        return math.nan if self.operating_point is None else self.operating_point.threshold

    def _without_result(self, case: str, error: str) -> Prediction:
        return Prediction(case, {}, "", self._threshold, (math.nan, math.nan), error)

    def _prediction(self, case: str, by_member: FloatArray) -> Prediction:
        """Put one case's (members, classes) into words."""
        mean = by_member.mean(axis=0)
        decision = self.decide(mean)
        of_interest = by_member[:, self.classes.index(self.positive or decision)]
        return Prediction(
            case=case,
            probabilities={name: float(p) for name, p in zip(self.classes, mean, strict=True)},
            decision=decision,
            threshold=self._threshold,
            spread=(float(of_interest.min()), float(of_interest.max())),
        )

    def decide(self, probabilities: FloatArray) -> str:
        """Return the class decided for.

        That is the positive class from the threshold on, otherwise the likeliest of the others; without a
        positive class the likeliest of all.

        Args:
            probabilities: (classes,).
        """
        order = [self.classes[i] for i in np.argsort(-probabilities, kind="stable")]
        if not self.positive:
            return order[0]
        if probabilities[self.classes.index(self.positive)] >= self._threshold:
            return self.positive
        return next(name for name in order if name != self.positive)

    def predict_arrays(self, prepared: Mapping[str, Pictures]) -> FloatArray:
        """Predict films that are prepared already.

        Args:
            prepared: Input -> uint8 (n, channels, size, size), as `prepare` gives them.

        Returns:
            (n, classes): the mean of the models' calibrated probabilities.
        """
        return np.asarray(self.member_probabilities(prepared).mean(axis=0))

    def member_probabilities(self, prepared: Mapping[str, Pictures]) -> FloatArray:
        """Return what each model says.

        Args:
            prepared: Input -> uint8 (n, channels, size, size); all n run at once.

        Returns:
            (members, n, classes) calibrated probabilities.
        """
        pictures = self.tensors(prepared)
        scores = np.mean([self._scores(pictures, index) for index in range(self.views)], axis=0)
        return np.stack([c.apply(s) for c, s in zip(self.calibrations, scores, strict=True)])

    def tensors(self, prepared: Mapping[str, Pictures]) -> dict[str, Tensor]:
        """Turn prepared films (n, c, h, w) into what the networks eat: float32 in [0, 1] on their device."""
        self._check_inputs(prepared)
        return {
            name: torch.from_numpy(np.array(value)).to(self._device).float() / 255.0 for name, value in prepared.items()
        }

    @torch.inference_mode()
    def _scores(self, pictures: Mapping[str, Tensor], index: int) -> FloatArray:
        """Logits of one view, (members, n, classes); steps that the models share run once."""
        lower = {
            name: self.networks[0].encoders[name](view(picture, index), 0, self.frozen[name])
            for name, picture in pictures.items()
        }
        return np.stack([n.to_scores(self.target, n(lower, start=self.frozen)[self.target]) for n in self.networks])


def _check_device(device: str) -> None:
    """Refuse a device that is not here."""
    kind = device.partition(":")[0]
    if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()):
        return
    raise BundleError(f"there is no device {device!r} here", expected="cpu, or cuda where there is one", do="use cpu")


def _choose(members: Sequence[Mapping[str, Any]], name: str | None) -> Sequence[Mapping[str, Any]]:
    """Pick one model by its name, or all."""
    if name is None:
        return members
    chosen = [m for m in members if m["name"] == name]
    if not chosen:
        raise BundleError(f"this bundle has no model {name!r}", expected=nearest(name, [m["name"] for m in members]))
    return chosen


def _calibration(data: Mapping[str, Any]) -> Calibration:
    return Calibration(**{**data, "intercepts": tuple(data["intercepts"])})


def _networks(
    folder: Path, facts: Mapping[str, Any], members: Sequence[Mapping[str, Any]], device: torch.device
) -> tuple[Network, ...]:
    """Build the models; tensors that were stored once are held once."""

    def tensors(name: str) -> dict[str, Tensor]:
        return {k: v.to(device) for k, v in from_safetensors(read_sealed(folder, facts, name)).items()}

    if any("weights" in encoder["options"] for encoder in facts["network"]["encoders"]):
        raise BundleError("the network's spec names weights elsewhere", expected="all weights in the bundle")
    # Loaded inside somebody's inference mode, the weights could not take part in a heat map's gradient.
    with torch.inference_mode(False):
        empty = Network.from_spec(facts["network"]).to(device).eval().requires_grad_(False)
        shared = tensors(facts["shared"]) if facts["shared"] else {}
        networks = []
        for member in members:
            network = copy.deepcopy(empty)
            network.load_state_dict({**shared, **tensors(member["file"])}, assign=True)
            networks.append(network)
    return tuple(networks)


def _same_memory(modules: Sequence[nn.Module]) -> bool:
    """Say whether modules hold the very same tensors."""
    places = [[tensor.data_ptr() for tensor in module.state_dict().values()] for module in modules]
    return all(place == places[0] for place in places)
