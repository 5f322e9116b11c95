"""Contact sheets: every picture of a study before and after it is masked, for a person to look at.

It must not know networks, nor judge any picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.cohort.contact_sheet import Pair, contact_sheet
from tenfold.config import ImageInput
from tenfold.errors import StudyError
from tenfold.modalities.image import eight_bit
from tenfold.study.bench import preparation, reader
from tenfold.study.files import check_out
from tenfold.study.preparing import complete
from tenfold.study.progress import Progress
from tenfold.types import write_atomically

if TYPE_CHECKING:
    from tenfold.study.study import Study

_A_PAGE = 100


def write_contact_sheets(study: Study, out: Path, progress: Progress) -> list[Path]:
    """Write the pages of a study's pictures.

    Args:
        study: The study.
        out: Folder; empty or absent.
        progress: Told what goes on.

    Returns:
        The pages, one a view and hundred pictures.

    Raises:
        Refusal: The study has no pictures, or one cannot be read or masked.
    """
    check_out(out)
    cohort = study.cohort()
    config = complete(study.config, cohort)
    views = {name: section for name, section in config.inputs.items() if isinstance(section, ImageInput)}
    if not views:
        raise StudyError("the study has no input of pictures", expected="one at least, to be looked at")
    pages = []
    for name, section in views.items():
        column = section.column or name
        prepared = preparation(section, cohort, column)
        read = reader(cohort, column, prepared)
        files = [path for own in cohort.pictures(column) for path in own]
        progress.start(f"contact sheets of {name}", len(files))
        parts = [files[start : start + _A_PAGE] for start in range(0, len(files), _A_PAGE)]
        for number, part in enumerate(parts, start=1):
            pairs = []
            for path in part:
                reading = read(path)
                shown = path.relative_to(cohort.folder).as_posix()
                pairs.append(
                    Pair(shown, eight_bit(reading), prepared.visible(prepared.apply(reading)), prepared.boxes(reading))
                )
                progress.advance()
            page = out / (f"{name}.html" if len(parts) == 1 else f"{name}-{number:02d}.html")
            title = f"{config.title or 'Study'}: {name}" + (
                f", page {number} of {len(parts)}" if len(parts) > 1 else ""
            )
            write_atomically(page, contact_sheet(pairs, title=title))
            pages.append(page)
    return pages
