"""Drawing of results: figures, tables, one self-contained page, the model card, filled checklists.

It must not know a network, a statistic or a modality: it reads the files of a run and nothing else.
"""

from __future__ import annotations

from tenfold.report.model_card import model_card, write_model_card
from tenfold.report.page import write_report

__all__ = ["model_card", "write_model_card", "write_report"]
