"""Waiting for models to reach a state; for commands and for ``?wait=`` of the API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.utils.translation import gettext as _

from models_app import reasons
from models_app.models import ModelConfig
from models_app.selectors import model_state
from models_app.states import State

POLL = 0.1
# It takes the supervisor a moment to see a wish; until then a FAILED of before must not count as its answer.
SETTLE = 1.5
STARTED = frozenset({State.READY, State.FAILED})
STOPPED = frozenset({State.STOPPED})


@dataclass(frozen=True)
class Outcome:
    name: str
    state: State
    reason: str

    @property
    def line(self) -> str:
        return f"{self.name}: {self.state.label}" + (f" - {self.reason}" if self.reason else "")


def active_names() -> list[str]:
    return [model.name for model in ModelConfig.objects.all() if model.wanted_replicas]


def wait_for(names: Iterable[str], states: Iterable[State], seconds: float) -> Iterator[Outcome]:
    """Each model as soon as it is in one of the states, or as it is when the time is over."""
    begin, left, aim = time.monotonic(), list(names), frozenset(states)
    while left:
        late = time.monotonic() - begin > seconds
        settled = time.monotonic() - begin > SETTLE
        for name in list(left):
            outcome = outcome_of(name)
            if late or (outcome.state in aim and (settled or outcome.state is not State.FAILED)):
                left.remove(name)
                yield outcome
        if left:
            time.sleep(POLL)


def outcome_of(name: str) -> Outcome:
    model = ModelConfig.objects.filter(name=name).prefetch_related("running").first()
    if model is None:
        return Outcome(name, State.STOPPED, _("There is no such model any more."))
    replicas = list(model.running.all())
    state = model_state(model, replicas)
    why = "" if state is State.READY else next((text for r in replicas if (text := reasons.text(r.reason))), "")
    return Outcome(name, state, why)
