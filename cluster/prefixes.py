"""What each replica's cache remembers, so that a conversation finds its way back. Pure.

A prompt is a chain: the hash of each part stands for all that comes before it as well, so that two prompts with the same hash
begin alike up to there. A replica that has read a prompt is remembered under each hash of its chain. Looking one up begins at the
end: the first hash that is known names those who have the most of it.

Memory is bounded by the number of entries (a hash and a replica). They live in two generations: when the young one has half as
many as allowed it becomes the old one, and what was old and not used since is forgotten. That keeps what is used without any
bookkeeping at each use.

What a replica is reading at the moment is not remembered yet: llama-server lends nobody what a busy slot holds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

MOST_HOLDERS = 32  # of one hash that are looked at, beside those that the caller names


@dataclass(frozen=True, slots=True)
class Prompt:
    """``hashes`` of its parts, each of all up to there; ``sizes`` in bytes, likewise; ``answers``: which parts a model wrote."""

    hashes: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    answers: tuple[bool, ...] = ()

    @property
    def size(self) -> int:
        return self.sizes[-1] if self.sizes else 0

    @property
    def key(self) -> int:
        """The same for all turns of a conversation and for no other: all that comes before the first answer."""
        if not self.hashes:
            return 0
        first = next((place for place, is_answer in enumerate(self.answers) if is_answer), len(self.hashes))
        return self.hashes[max(first - 1, 0)]

    def read_to(self, place: int) -> int:
        """Bytes that one has in its cache who has read up to that part: it has written the answer that follows, most likely."""
        following = place + 1
        return self.sizes[following if following < len(self.answers) and self.answers[following] else place]

    def place_of(self, size: int) -> int:
        """The part up to which one has read at least who has so many bytes in its cache, of ``read_to``."""
        place = bisect_left(self.sizes, size)
        return place - 1 if place and self.answers[place] else place

    def begins_as(self, other: Prompt, place: int) -> bool:
        """Up to that part of the other one."""
        return len(self.hashes) > place and self.hashes[place] == other.hashes[place]

    def contains(self, other: Prompt) -> bool:
        """It begins with the whole of the other one."""
        return bool(other.hashes) and self.begins_as(other, len(other.hashes) - 1)

    def common(self, other: Prompt) -> int:
        """Bytes of the other one that one has in its cache who has read this one."""
        low, high = 0, min(len(self.hashes), len(other.hashes))
        while low < high:  # each hash stands for all before it
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.hashes[middle - 1] == other.hashes[middle - 1] else (low, middle - 1)
        return other.read_to(low - 1) if low else 0


NOTHING = Prompt()
Holders = int | set[int]  # replicas; mostly one, and a set would take ten times the memory
Generation = dict[int, Holders]  # by hash


class Prefixes:
    """``most``: entries, a hard limit."""

    def __init__(self, most: int) -> None:
        self._half = max(most // 2, 1)
        self._young: Generation = {}
        self._old: Generation = {}
        self._count = 0  # entries of the young generation
        self._old_count = 0

    def __len__(self) -> int:
        """Entries."""
        return self._count + self._old_count

    def remember(self, prompt: Prompt, replica: int) -> None:
        """It has read the whole."""
        for digest in prompt.hashes:
            holders = self._young.get(digest)
            if holders is None:
                self._young[digest] = replica
            elif holders == replica or (isinstance(holders, set) and replica in holders):
                continue
            elif isinstance(holders, set):
                holders.add(replica)
            else:
                self._young[digest] = {holders, replica}
            self._count += 1
            if self._count >= self._half:
                self._old, self._old_count = self._young, self._count
                self._young, self._count = {}, 0

    def matches(self, prompt: Prompt, also: Iterable[int] = ()) -> dict[int, int]:
        """Bytes of the prompt by replica, of those who have most of it and of those named in ``also``."""
        found: dict[int, int] = {}
        wanted = list(also)
        for place in range(len(prompt.hashes) - 1, -1, -1):
            digest = prompt.hashes[place]
            young, old = self._young.get(digest), self._old.get(digest)
            if young is None and old is None:
                continue
            size, count = prompt.read_to(place), len(found)
            for holders in (young, old):
                if holders is not None:
                    self._note(found, holders, wanted, size)
            if len(found) > count:
                wanted = [replica for replica in wanted if replica not in found]
            if not wanted and len(found) >= MOST_HOLDERS:
                break
        return found

    @staticmethod
    def _note(found: dict[int, int], holders: Holders, wanted: list[int], size: int) -> None:
        if isinstance(holders, int):
            found.setdefault(holders, size)
            return
        for replica in holders if len(holders) <= MOST_HOLDERS else wanted:
            if replica in holders:
                found.setdefault(replica, size)
