"""The researcher's door: a study file and a cohort go in, a run folder comes out.

It must not know a terminal or a server.
"""

from tenfold.study.external import evaluate_bundle
from tenfold.study.run import Run
from tenfold.study.study import Study

__all__ = ["Run", "Study", "evaluate_bundle"]
