"""Is what was built a llama-server that answers, and is it faster than the built-in engine? Both run side by side and are asked
in turns, so that a machine that changes its speed does so for both.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from llmplatform.service.llama_build.problems import BuildFailed
from models_app import gguf, inspection, reasons, starter
from models_app.command_line import Wanted
from models_app.launchers.local import LocalLauncher
from models_app.lives import Engine
from models_app.tuning.trial import Answer, Load, TrialFailed, Trials, ask, ask_all, new_client

QUESTION = "What is the capital of France?"
WORDS_ALIKE = 3
ROUNDS = 5
# What a typical request consists of; the ratio weighs reading and writing by it.
PROMPT_TOKENS, ANSWER_TOKENS = 200, 100
MARK = -1
BUILT, EMBEDDED = "built", "embedded"


@dataclass(frozen=True)
class Speeds:
    """Tokens per second, medians over the rounds."""

    prompt: float
    answer: float

    @property
    def request(self) -> float:
        """Seconds of a typical request."""
        return PROMPT_TOKENS / self.prompt + ANSWER_TOKENS / self.answer


@dataclass(frozen=True)
class Comparison:
    """``embedded`` is None where the built-in engine does not run on this processor."""

    model: str
    built: Speeds
    embedded: Speeds | None

    @property
    def ratio(self) -> float | None:
        """Above 1: a typical request is answered so much faster by what was built."""
        return self.embedded.request / self.built.request if self.embedded else None


def model_file() -> Path:
    """The starter model, else the smallest one that writes text. Raises BuildFailed."""
    result = starter.ensure_starter_model()
    files = [path for path in settings.MODELS_PATH.rglob("*.gguf") if _writes_text(path)]
    if not files:
        raise BuildFailed(_("there is no model to try it with. %(why)s") % {"why": result.message})
    return min(files, key=lambda path: (path.name != starter.FILE, path.stat().st_size))


def _writes_text(path: Path) -> bool:
    try:
        facts = inspection.facts_of(path)
    except (gguf.GgufError, OSError):
        return False
    return facts.kind == gguf.CHAT


def wanted_for(file: Path) -> Wanted:
    return Wanted(
        name="trial",
        file=file.name,
        path=str(file.parent),
        context_length=1024,
        max_tokens=256,
        temperature=0.0,
        top_p=1.0,
        repeat_penalty=1.0,
        threads=None,
        gpu_layers=0,
        slots=1,
        embeddings=False,
        restart_number=0,
        prompt_cache=0,
    )


async def compare(
    program: Path, file: Path, log: Path, told: Callable[[int, int], None], rounds: int = ROUNDS
) -> Comparison:
    """Raises BuildFailed when it does not start, or answers differently from the built-in engine."""
    wanted = wanted_for(file)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(new_client())
        engines: dict[str, Engine] = {}
        with contextlib.suppress(TrialFailed):  # a processor without AVX2: no engine to compare with
            engines[EMBEDDED] = await stack.enter_async_context(
                Trials(LocalLauncher.of(None), MARK, log).engine(wanted)
            )
        taken = [engine.port for engine in engines.values()]
        try:
            trials = Trials(LocalLauncher.of(program), MARK, log, taken=taken)
            engines[BUILT] = await stack.enter_async_context(trials.engine(wanted))
            answers = {name: await ask(client, engine, QUESTION, 24) for name, engine in engines.items()}
            check_answers(answers)
            seen: dict[str, list[Answer]] = {name: [] for name in engines}
            for turn in range(rounds):
                told(turn, rounds)
                for name, engine in engines.items():
                    seen[name] += (await ask_all(client, [engine], Load(clients=1)))[0]
            told(rounds, rounds)
        except TrialFailed as error:
            message = _("the llama-server that was built does not work: %(why)s")
            raise BuildFailed(message % {"why": reasons.text(error.reason)}) from error
    embedded = speeds(seen[EMBEDDED]) if EMBEDDED in seen else None
    return Comparison(file.name, speeds(seen[BUILT]), embedded)


def speeds(answers: Sequence[Answer]) -> Speeds:
    return Speeds(
        statistics.median(answer.prompt_per_second for answer in answers),
        statistics.median(answer.answer_per_second for answer in answers),
    )


def check_answers(answers: Mapping[str, Answer]) -> None:
    """The most likely words must be those that the built-in engine finds most likely; at least, they must be words."""
    built = words(answers[BUILT].text)
    expected = words(answers[EMBEDDED].text)[:WORDS_ALIKE] if EMBEDDED in answers else built[:1]
    if not built or built[: len(expected)] != expected:
        raise BuildFailed(
            _("the llama-server that was built answers “%(built)s” where the built-in engine answers “%(expected)s”.")
            % {
                "built": answers[BUILT].text[:80],
                "expected": answers[EMBEDDED].text[:80] if EMBEDDED in answers else "…",
            }
        )


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
