"""Who waits, and whose turn it is. Pure: no I/O, no clock, no tasks.

One turn per user: users stand in a ring, each with a line of their own. A user with a thousand requests delays another's
single one by at most one turn. Requests that had a replica and lost it before its first byte come before everybody:
they have waited already.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class QueueFull(Exception):
    """No more requests may wait."""


class FairQueue(Generic[Entry]):
    """Entries must be hashable by identity and be in the queue at most once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: OrderedDict[Hashable, deque[Entry]] = OrderedDict()
        self._returned: deque[Entry] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order they would be served."""
        yield from self._returned
        lines = [list(line) for line in self._lines.values()]
        for turn in range(max(map(len, lines), default=0)):
            yield from (line[turn] for line in lines if turn < len(line))

    def push(self, user: Hashable, entry: Entry) -> None:
        """Raises QueueFull."""
        if self._length >= self.limit:
            raise QueueFull
        self._lines.setdefault(user, deque()).append(entry)
        self._length += 1

    def push_returned(self, entry: Entry) -> None:
        """An entry that was served before and failed through no fault of its own. Never refused."""
        self._returned.append(entry)
        self._length += 1

    def pop(self, accepts: Callable[[Entry], bool]) -> Entry | None:
        """The next entry. ``accepts`` tells whether a returned entry can use what is free now; it is passed over if not."""
        for entry in self._returned:
            if accepts(entry):
                self._returned.remove(entry)
                self._length -= 1
                return entry
        if not self._lines:
            return None
        user, line = next(iter(self._lines.items()))
        entry = line.popleft()
        self._length -= 1
        if line:
            self._lines.move_to_end(user)
        else:
            del self._lines[user]
        return entry

    def remove(self, user: Hashable, entry: Entry) -> None:
        """Somebody went away. Removing what is not there any more does nothing."""
        line = self._lines.get(user)
        if line is not None and entry in line:
            line.remove(entry)
            if not line:
                del self._lines[user]
        elif entry in self._returned:
            self._returned.remove(entry)
        else:
            return
        self._length -= 1

    def position(self, user: Hashable, entry: Entry) -> int:
        """How many are served before ``entry``, plus one; 0 when it does not wait."""
        if entry in self._returned:
            return self._returned.index(entry) + 1
        line = self._lines.get(user)
        if line is None or entry not in line:
            return 0
        turn = line.index(entry)
        ahead, own_passed = len(self._returned) + turn, False
        for other, waiting in self._lines.items():
            if other == user:
                own_passed = True
            else:
                ahead += min(len(waiting), turn if own_passed else turn + 1)
        return ahead + 1


def estimated_wait(position: int, slots: int, mean_seconds: float) -> float:
    """Seconds until the entry at ``position`` gets a slot, if every slot keeps its pace."""
    return position * mean_seconds / max(slots, 1)
