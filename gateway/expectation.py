"""What a request will cost its replica, before it is known. Pure."""

from __future__ import annotations

from cluster.balancer import Request
from cluster.prefixes import Prompt
from gateway.usage import TokenCount

LEARNS = 0.1  # how quickly the means follow what is seen
FIRST_ANSWER = 256.0  # tokens, before any was seen


class Expectation:
    """Of one model, learnt from what its requests turned out to be. Cost is in tokens that are computed: those of the prompt that
    no cache has, and those of the answer."""

    __slots__ = ("_answer", "_bytes", "_fresh")

    def __init__(self) -> None:
        self._bytes: float | None = None  # for a token of a prompt
        self._answer = FIRST_ANSWER
        self._fresh = 1.0  # the part of a prompt that no cache has

    def learn(self, count: TokenCount, answers: int, size: int = 0) -> None:
        """``count``: of a whole request, all its answers together; ``size``: bytes of its prompt, where they are text."""
        if count.prompt and size:
            seen = size / count.prompt
            self._bytes = seen if self._bytes is None else self._bytes + LEARNS * (seen - self._bytes)
        if count.completion:
            self._answer += LEARNS * (count.completion / answers - self._answer)
        if count.prompt:
            self._fresh += LEARNS * (1 - min(count.cached / count.prompt, 1) - self._fresh)

    def request(self, prompt: Prompt, likely: int, longest: int, answers: int) -> Request:
        """``likely``: about how many tokens are read, as far as a body alone can tell."""
        read = prompt.size / self._bytes if self._bytes and prompt.size else float(likely)
        return Request(read, answers * min(longest, self._answer), prompt.key)

    def cost(self, prompt: int, longest: int, answers: int) -> int:
        """``prompt``: about how many tokens are read; ``longest``: the most that one answer may have, 0 where none is made."""
        return max(1, round(prompt * self._fresh + answers * min(longest, self._answer)))
