"""Many fits as one: the same as one by one, and as the engine below says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tenfold import encoders
from tenfold.errors import TrainingError
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.augment import Augmentation
from tenfold.training.loop import Recipe, fit, predict_scores
from tenfold.training.sources import Inputs, Part
from tenfold.training.span import predict_members
from tenfold.training.stages import Material
from tenfold.training.together import Job, Together, fit_together, predict_together, span_form

N, EDGES, FEATURES = 30, 40, 3
TRAIN, INNER, TEST = np.arange(18), np.arange(18, 24), np.arange(24, 30)
HEADS = {
    "cognitive": HeadSpec("softmax", ("no", "yes")),
    "language": HeadSpec("softmax", ("low", "middle", "high"), positive=(0,)),
    "motor": HeadSpec("number", ("not below 85", "below 85"), centre=85.0, scale=12.0),
}
RECIPE = Recipe(epochs=4, batch=6, rate=0.05, encoder_rate=0.02, optimizer="sgd", schedule="constant")


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, FEATURES)).astype(np.float32)
    observed = (rng.random((N, FEATURES)) > 0.2).astype(np.float32)
    edges = rng.normal(size=(N, EDGES)).astype(np.float32)
    edges[29] = np.nan
    tables = {"brain": edges, "labs": np.stack([values * observed, observed], 1)}
    return Inputs({}, Augmentation(), 0, torch.device("cpu"), tables)


@pytest.fixture(scope="module")
def labels(inputs: Inputs) -> dict[str, torch.Tensor]:
    x = torch.from_numpy(inputs.tables["brain"]).nan_to_num()
    found = {
        "cognitive": (x[:, 0] > 0).float(),
        "language": (x[:, 1] > -0.4).float() + (x[:, 1] > 0.4),
        "motor": 95 + 12 * x[:, 2],
    }
    found["cognitive"][3] = found["motor"][7] = torch.nan
    return found


def _material(inputs: Inputs, labels: dict[str, torch.Tensor], shift: int = 0) -> Material:
    rows = np.roll(np.arange(24), shift)
    train, inner = rows[:18], rows[18:]
    return Material(
        inputs, train, {k: v[train] for k, v in labels.items()}, inner, {k: v[inner] for k, v in labels.items()}
    )


def _builder(seed: int = 0, only: tuple[str, ...] = (), **options: object) -> Callable[[], Network]:
    own = {"norm": "layer", "dropout": 0.0, "first": "brain", **options}
    norm, dropout, first = own.pop("norm"), own.pop("dropout"), own.pop("first")

    def build() -> Network:
        torch.manual_seed(seed)
        built = {
            "brain": encoders.build("connectome_dense", edges=EDGES, widths=[8, 5], norm=norm, dropout=dropout),
            "labs": encoders.build("table_dense", features=FEATURES, width=4, norm=norm, dropout=dropout),
        }
        order = sorted(only or built, key=lambda name: name != first)
        return Network({name: built[name] for name in order}, HEADS, **{"shared": 6, "norm": norm, **own})

    return build


def _job(inputs: Inputs, labels, name: str = "job", seed: int = 3, shift: int = 0, **options) -> Job:
    targets, recipe = options.pop("targets", tuple(HEADS)), options.pop("recipe", RECIPE)
    return Job(name, _builder(seed, **options), targets, _material(inputs, labels, shift), recipe, seed)


def _loaded(one: Together) -> Network:
    network = one.job.network()
    network.load_state_dict(one.state())
    return network.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first": "labs"},
        {"norm": "batch", "head_norm": True},
        {"norm": "none", "only": ("brain",)},
        {"only": ("labs",)},
        {"recipe": replace(RECIPE, class_weights=True, weight_decay=0.1, schedule="cosine")},
        {"targets": ("motor", "cognitive"), "recipe": replace(RECIPE, epochs=8, patience=2)},
    ],
    ids=str,
)
def test_the_loop_makes_the_same_of_it(inputs: Inputs, labels, options: dict) -> None:
    job = _job(inputs, labels, **options)
    (one,) = fit_together([job])
    network, material = job.network(), job.material
    expected = fit(
        network,
        targets=job.targets,
        train=Part(inputs, material.train, material.train_labels),
        inner=Part(inputs, material.inner, material.inner_labels),
        recipe=job.recipe,
        seed=job.seed,
    )
    assert one.fit.best_epoch == expected.best_epoch
    for ours, theirs in zip(one.fit.history, expected.history, strict=True):
        assert ours == pytest.approx({key: theirs[key] for key in ours}, abs=1e-4)
    state = network.state_dict()
    for name, tensor in one.state().items():
        assert torch.allclose(tensor, state[name], atol=1e-4), name
    rows = TEST[:-1]
    plain = predict_scores(network, inputs, rows, job.targets)
    for target, scores in predict_together([one], [rows])[0].items():
        assert np.abs(scores - plain[target]).max() < 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_folded_network_says_what_the_engine_says(inputs: Inputs, labels, optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, weight_decay=0.05, rate=0.02)
    jobs = [_job(inputs, labels, seed=k, shift=k, recipe=recipe, dropout=0.2) for k in range(3)]
    rows = [TEST[:-1], TRAIN, TEST[:2]]
    fitted = fit_together(jobs)
    below = predict_members([one.trained for one in fitted], [fitted[0].prepared], rows)
    for one, own, raw, scores in zip(fitted, rows, below, predict_together(fitted, rows), strict=True):
        network = _loaded(one)
        with torch.no_grad():
            said = network(inputs.batch(own))
        for target in HEADS:
            assert np.abs(said[target].numpy() - raw[target]).max() < 1e-5
            assert np.abs(network.to_scores(target, said[target]) - scores[target]).max() < 1e-5
            assert scores[target].shape == (len(own), 2)


def test_a_job_alone_becomes_the_same_as_among_others(inputs: Inputs, labels) -> None:
    jobs = [
        _job(inputs, labels, "fused"),
        _job(inputs, labels, "single", targets=("cognitive",)),
        _job(inputs, labels, "shifted", seed=4, shift=5, dropout=0.3),
        _job(inputs, labels, "brain", only=("brain",), first="brain"),
        _job(inputs, labels, "labs", only=("labs",)),
    ]
    done: list[tuple[int, int]] = []
    together = fit_together(jobs, progress=lambda *at: done.append(at))
    assert done[-1] == (5, 5)
    assert [at[0] for at in done] == sorted({at[0] for at in done})
    for job, one in zip(jobs, together, strict=True):
        (alone,) = fit_together([job])
        assert one.job is job
        assert alone.fit.best_epoch == one.fit.best_epoch
        state = alone.state()
        for name, tensor in one.state().items():
            assert torch.allclose(tensor, state[name], atol=1e-5), (job.name, name)


def test_what_is_the_same_is_held_once_and_first_weights_not_at_all(inputs: Inputs, labels) -> None:
    first, second = fit_together([_job(inputs, labels), _job(inputs, labels, seed=9, shift=2)])
    assert first.prepared is second.prepared
    other = inputs.with_tables({**inputs.tables, "labs": inputs.tables["labs"] * 2})
    third, fourth = fit_together([_job(inputs, labels), _job(other, labels)])
    assert third.prepared.edges is fourth.prepared.edges
    assert third.prepared.clinical is not fourth.prepared.clinical
    held = [*first.trained.tensors.values(), *first.trained.member.start.values(), first.trained.coordinates]
    assert all(tensor.shape[-1] != EDGES for tensor in held)


def test_heads_are_made_anew_from_the_seed_and_those_not_asked_for_are_left(inputs: Inputs, labels) -> None:
    job = replace(_job(inputs, labels, targets=("motor",)), heads={k: HEADS[k] for k in ("motor", "cognitive")})
    assert all(torch.equal(a, b) for a, b in zip(job.network().parameters(), job.network().parameters(), strict=True))
    (one,) = fit_together([job])
    began, state = job.network().state_dict(), one.state()
    assert list(state) == list(began)
    changed = {name for name in state if not torch.equal(state[name], began[name])}
    # the second head is "cognitive"
    assert not any(name.startswith("head_list.1") for name in changed)
    assert any(name.startswith("head_list.0") for name in changed)
    assert not torch.equal(state["head_list.0.1.weight"], _builder(3)().state_dict()["head_list.2.1.weight"])


def test_a_builder_that_forgets_is_found_out(inputs: Inputs, labels) -> None:
    seeds = iter(range(9))
    job = replace(_job(inputs, labels), build=lambda: _builder(next(seeds))())
    (one,) = fit_together([job])
    with pytest.raises(TrainingError, match="job: its build makes another network"):
        one.state()


@pytest.mark.parametrize(
    ("options", "recipe", "says"),
    [
        ({"shared": 0}, {}, "no shared layer"),
        ({"fusion": "gated"}, {}, "'gated'"),
        ({"modality_dropout": 0.2}, {}, "modality dropout is 0.2"),
        ({"dropout": 0.0, "norm": "batch"}, {"norm": "frozen"}, "norm = 'frozen'"),
        ({"head_norm": True}, {}, "norm = 'layer' elsewhere"),
        ({}, {"optimizer": "adam"}, "optimizer = 'adam', not 'sgd' or 'adamw'"),
        ({}, {"thaw": 1}, "thaw = 1"),
        ({}, {"monitor": "auc"}, "monitor = 'auc'"),
        ({}, {"averaging": 0.9}, "averaging"),
        ({}, {"target_weights": "uncertainty"}, "uncertainty"),
        ({}, {"corrupt": 0.1}, "corrupt"),
    ],
)
def test_the_form_says_what_stands_in_the_way(options: dict, recipe: dict, says: str) -> None:
    assert span_form(_builder()(), RECIPE) == ""
    assert says in span_form(_builder(**options)(), replace(RECIPE, **recipe))


def test_other_heads_and_encoders_are_not_of_the_form(inputs: Inputs, labels) -> None:
    network = _builder()()
    network.replace_heads({"m": HeadSpec("ordinal", ("a", "b", "c"))})
    assert "'m' is ordinal" in span_form(network, RECIPE)
    network.replace_heads({"m": HeadSpec("softmax", ("a", "b"), hidden=3)})
    assert "hidden layer" in span_form(network, RECIPE)
    mixed = {
        "brain": encoders.build("connectome_dense", edges=EDGES, norm="batch"),
        "labs": encoders.build("table_dense", features=FEATURES),
    }
    assert "norms differ: batch, layer" in span_form(Network(mixed, HEADS, shared=4), RECIPE)
    mixed = {"labs": encoders.build("table_mlp", features=FEATURES)}
    assert "table_mlp" in span_form(Network(mixed, HEADS, shared=4), RECIPE)
    lacking = _material(inputs, labels)
    lacking = replace(lacking, train=np.array([*TRAIN[:-1], 29]))
    assert span_form(_builder()(), RECIPE, lacking) == "1 of 24 cases have no brain"


def test_jobs_that_cannot_be_fitted_are_refused_by_name(inputs: Inputs, labels) -> None:
    job = _job(inputs, labels, "fold 3")
    with pytest.raises(TrainingError, match="fold 3: it cannot be trained beside others: it has no shared layer"):
        fit_together([replace(job, build=_builder(shared=0))])
    with pytest.raises(TrainingError, match="did you mean 'motor'"):
        fit_together([replace(job, targets=("motr",))])
    (one,) = fit_together([job])
    with pytest.raises(TrainingError, match="1 of 6 cases have no brain"):
        predict_together([one], [TEST])
