"""What a reading is: one file a modality, from a file on disk to the numbers a network eats.

It must not know cohorts, labels, folds or networks, nor anything random: augmentation belongs to training.

Every modality keeps the same contract, in this order:

- read: a file becomes a `types.Reading`, or an `errors.ImageError` that says what is wrong with it; the cells of a
  table become a `table.TableReading`, matrices a `connectome.ConnectomeReading`, or an `errors.CohortError`.
- check: what is readable but useless (a blank picture) is told apart, so that the audit can name it.
- fit: what the preparation must learn, it learns from training patients only. Pictures learn nothing.
- apply: the fitted preparation turns a reading into an array of fixed shape. The same reading always gives
  the same bytes, in training and in the hospital.
- state: the preparation as plain JSON, `from_state` reads it back; it travels inside the bundle. What is too long for
  JSON (a number for every edge and site) stands in `arrays`, which `from_state` takes beside it.
"""

from __future__ import annotations

from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.modalities.image import ImagePreparation
from tenfold.modalities.table import TablePreparation

Preparation = ConnectomePreparation | ImagePreparation | TablePreparation

MODALITIES: dict[str, type[ConnectomePreparation] | type[ImagePreparation] | type[TablePreparation]] = {
    "connectome": ConnectomePreparation,
    "image": ImagePreparation,
    "table": TablePreparation,
}
