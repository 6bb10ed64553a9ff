"""What an answer consists of so far, addressed by sequence numbers.

A sequence number is the count of characters, reasoning and text together, up to and including a piece. So any number a client
ever saw names a place in the answer, pieces can be joined and cut freely, and an answer read back from the database (its
reasoning, then its text: the order in which engines write them) has the same numbers as when it was written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from typing import Literal, NamedTuple

Kind = Literal["delta", "reasoning"]


class Piece(NamedTuple):
    seq: int  # after this piece
    kind: Kind
    text: str


class Transcript:
    """Only grows. Written by one thread; a reader in another sees some moment of it, never a mixture."""

    def __init__(self, reasoning: str = "", text: str = "") -> None:
        self._pieces: list[Piece] = []
        self.append("reasoning", reasoning)
        self.append("delta", text)

    @property
    def seq(self) -> int:
        return self._pieces[-1].seq if self._pieces else 0

    def append(self, kind: Kind, text: str) -> None:
        if text:
            self._pieces.append(Piece(self.seq + len(text), kind, text))

    def since(self, seq: int) -> Iterator[Piece]:
        """What follows ``seq``, neighbours of one kind joined."""
        first = bisect_right(self._pieces, seq, key=lambda piece: piece.seq)
        for kind, group in groupby(self._pieces[first:], key=lambda piece: piece.kind):
            pieces = list(group)
            text = "".join(piece.text for piece in pieces)
            last = pieces[-1].seq
            yield Piece(last, kind, text[max(0, seq - (last - len(text))) :])

    def snapshot(self) -> tuple[str, str, int]:
        """Text, reasoning, and the sequence number they reach to."""
        pieces = self._pieces.copy()
        text = "".join(piece.text for piece in pieces if piece.kind == "delta")
        reasoning = "".join(piece.text for piece in pieces if piece.kind == "reasoning")
        return text, reasoning, pieces[-1].seq if pieces else 0
