"""What a table of the report is: caption, columns and rows of plain text.

It must not know HTML, nor what any table says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Table:
    """A table for a page; the first cell of each row names it.

    Attributes:
        caption: What it shows, with n where one holds for all of it.
        columns: Column heads.
        rows: Cells as text.
        note: What a reader must know to read it.
        strong: Rows to set in bold.
        words: Columns of running text, set to the left; the others are numbers.
        loose: Whether numbers may wrap, for a table that would be too wide.
        soft: Rows that are not ours, set back.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""
    strong: tuple[int, ...] = ()
    words: tuple[int, ...] = (0,)
    loose: bool = False
    soft: tuple[int, ...] = ()


def one_method(table: Table) -> Table:
    """Say a method that holds for every row once, below the table, in place of its last column."""
    methods = {row[-1] for row in table.rows}
    if len(methods) > 1:
        return table
    note = f"Method of every row: {methods.pop()}. {table.note}".strip()
    return replace(table, columns=table.columns[:-1], rows=[row[:-1] for row in table.rows], note=note)
