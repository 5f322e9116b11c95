"""How a long job tells what it is doing. It must not know a terminal."""

from __future__ import annotations


class Progress:
    """Silent by default; the command line draws bars with the same verbs."""

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of so many parts."""

    def advance(self, parts: int = 1) -> None:
        """Some parts are done."""

    def reach(self, parts: int) -> None:
        """So many parts are done in all."""

    def say(self, text: str) -> None:
        """Tell a person something in passing."""
