from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from tenfold.serve.answer import Answer, Check, Contribution
from tenfold.serve.pngs import Pngs, heat_picture
from tenfold.serve.telling import frequency_sentence, set_sentence, similar


def test_a_probability_is_told_as_a_count_of_patients() -> None:
    said = frequency_sentence({"healthy": 0.768, "sick": 0.232}, "sick")
    assert said.startswith("Of 100 patients with this result in the study's mix")
    assert said.index('about 23 "sick"') < said.index('about 77 "healthy"')


@pytest.mark.parametrize(
    ("p", "words"), [(0.004, "fewer than 1"), (0.999, "more than 99"), (0.01, "about 1"), (0.99, "about 99")]
)
def test_no_certainty_is_claimed(p: float, words: str) -> None:
    assert f'{words} "sick"' in frequency_sentence({"healthy": 1 - p, "sick": p}, "sick")


def test_of_several_classes_all_are_told_the_likeliest_first_without_a_positive() -> None:
    said = frequency_sentence({"a": 0.2, "b": 0.5, "c": 0.3}, "")
    assert said.index('50 "b"') < said.index('30 "c"') < said.index('20 "a"')


@pytest.mark.parametrize(
    ("likely", "words"),
    [
        (("a",), 'Only "a" remains'),
        (("a", "b"), '"a" and "b" remain'),
        (("a", "b", "c"), "No class can be excluded"),
        ((), "None of the classes fits"),
    ],
)
def test_a_prediction_set_in_words(likely: tuple[str, ...], words: str) -> None:
    said = set_sentence(("a", "b", "c"), likely, 0.1)
    assert said.startswith(words)
    assert "90%" in said


def test_without_a_set_nothing_is_said() -> None:
    assert set_sentence(("a", "b"), None, None) == ""


@pytest.mark.parametrize(("p", "low", "n"), [(0.0, 0.0, 22), (0.4999, 0.0, 22), (0.5, 0.5, 18), (1.0, 0.5, 18)])
def test_similar_patients_are_those_of_the_same_bin(p: float, low: float, n: int) -> None:
    told = {"edges": [0, 0.5, 1], "counts": {"healthy": [20, 5], "sick": [2, 13]}}
    found = similar(told, p)
    assert found is not None
    assert (found["low"], found["n"], sum(found["with_class"].values())) == (low, n, n)
    assert similar(None, p) is None


def test_an_answer_is_json_whatever_is_missing() -> None:
    row = Contribution("labs", "crp", "CRP", math.nan, "mg/L", 0.1)
    answer = Answer(
        {"name": "m"},
        "case",
        reasons=("film: blank",),
        quality=(Check("film", 0, "blank", "unusable", "shows nothing"),),
        contributions=(row,),
        pictures={("film", 0): b"PNG"},
    )
    told = json.loads(json.dumps(answer.to_dict(), allow_nan=False))
    assert told["result"] is False
    assert told["quality"][0]["check"] == "blank"
    assert told["contributions"][0]["value"] is None
    assert "pictures" not in told


def test_pictures_are_encoded_when_they_are_looked_at() -> None:
    heat = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    found = Pngs({("film", 0): heat_picture(heat)})
    decoded = np.asarray(Image.open(io.BytesIO(found[("film", 0)])))
    assert decoded.shape == (8, 8, 4)
    np.testing.assert_array_equal(decoded[..., 3], np.rint(255 * heat))  # nothing where the map says nothing
    assert list(found) == [("film", 0)]
