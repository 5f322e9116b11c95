"""The bundle: a folder that turns a raw film into a calibrated probability, anywhere.

It must not know how the weights were fitted: a hospital that loads one imports no training code.
"""

from __future__ import annotations

from tenfold.bundle.predictor import Prediction, Predictor, load
from tenfold.bundle.save import Answer, Member, save_bundle
from tenfold.bundle.seal import FORMAT_VERSION, image_mark, patient_mark

__all__ = [
    "FORMAT_VERSION",
    "Answer",
    "Member",
    "Prediction",
    "Predictor",
    "image_mark",
    "load",
    "patient_mark",
    "save_bundle",
]
