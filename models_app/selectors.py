"""Reads about models and replicas; the gateway's snapshot, the API's model objects, and what the supervisor should do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Exists, OuterRef, Prefetch

from cluster.models import Node
from models_app import config_file, inspection, memory, memory_learning, memory_plan, model_files, model_folder, reasons
from models_app.command_line import Wanted
from models_app.gguf import GgufError, GgufFacts
from models_app.launchers import local
from models_app.models import ModelConfig, Replica
from models_app.process import engine_key
from models_app.states import COMING, LIVE, State

# The state of a model is the best one among its replicas.
BEST_FIRST = (
    State.READY,
    State.DRAINING,
    State.LOADING,
    State.STARTING,
    State.DOWNLOADING,
    State.PENDING,
    State.FAILED,
)
SERVING = (State.READY, State.DRAINING)


@dataclass(frozen=True)
class ReplicaView:
    """A replica as the gateway needs it."""

    id: int
    model: str
    number: int
    node: str
    base_url: str
    api_key: str
    slots: int
    context_length: int | None
    state: str


@dataclass(frozen=True)
class ModelView:
    """A model as the gateway needs it; ``replicas`` are those that have requests or may get some."""

    name: str
    state: State
    max_tokens: int
    context_length: int | None
    embeddings: bool
    description: str
    created: int
    replicas: tuple[ReplicaView, ...]
    id: int = 0
    slots: int = 1  # of all its replicas, when they are there
    on_demand: bool = False  # its requests wait while it is not there
    coming: bool = False  # one of its replicas is, whatever others do
    load_seconds: float | None = None  # it took last
    aliases: tuple[str, ...] = ()
    is_default: bool = False
    system_prompt: str = ""
    prompt_cache: int = 1  # MiB of host cache that each replica has
    traffic: tuple[tuple[str, int], ...] = ()  # other models and the percentage of requests that each of them answers

    @property
    def names(self) -> tuple[str, ...]:
        """All that it may be asked for by."""
        return (self.name, *self.aliases)

    @cached_property
    def longest_context(self) -> int | None:
        """Of any of its replicas. None when one does not say."""
        contexts = [self.context_length, *(replica.context_length for replica in self.replicas)]
        known = [context for context in contexts if context]
        return max(known) if len(known) == len(contexts) else None


def names() -> list[str]:
    return list(ModelConfig.objects.values_list("name", flat=True))


def aliases() -> dict[str, str]:
    """Each with the model it stands for."""
    rows = ModelConfig.objects.exclude(aliases=[]).values_list("name", "aliases")
    return {alias: name for name, aliases in rows for alias in aliases}


# -- the gateway's -------------------------------------------------------------------------------------------------------
def serving_snapshot() -> dict[str, ModelView]:
    """All models that should run, do, or would if somebody asked, by name. Two queries; the gateway asks twice a second, in a
    thread."""
    views = {}
    for model in _with_replicas():
        replicas = list(model.running.all())
        if model.is_served or any(replica.state in LIVE for replica in replicas):
            views[model.name] = _model_view(model, replicas)
    return views


def _with_replicas() -> Iterable[ModelConfig]:
    drained = Exists(Node.objects.filter(name=OuterRef("node"), drained=True))
    replicas = Replica.objects.order_by("number").annotate(node_drained=drained)
    return ModelConfig.objects.select_related("loading").prefetch_related(Prefetch("running", replicas))


def _model_view(model: ModelConfig, replicas: Sequence[Replica]) -> ModelView:
    serving = tuple(_replica_view(model.name, replica) for replica in replicas if replica.state in SERVING)
    contexts = [view.context_length for view in serving if view.context_length]
    return ModelView(
        name=model.name,
        state=model_state(model, replicas),
        max_tokens=model.max_tokens,
        context_length=min(contexts) if contexts else model.context_length,
        embeddings=model.embeddings,
        description=model.description,
        created=int(model.created_at.timestamp()),
        replicas=serving,
        id=model.pk,
        slots=model.slots * model.replicas,
        on_demand=model.is_on_demand,
        coming=any(replica.state in COMING for replica in replicas),
        load_seconds=loading.seconds if (loading := getattr(model, "loading", None)) else None,
        aliases=tuple(model.aliases),
        is_default=model.is_default,
        system_prompt=model.system_prompt,
        prompt_cache=model.prompt_cache,
        traffic=tuple(sorted(model.traffic.items())),
    )


def _replica_view(model_name: str, replica: Replica) -> ReplicaView:
    return ReplicaView(
        id=replica.pk,
        model=model_name,
        number=replica.number,
        node=replica.node,
        base_url=f"http://{replica.host}:{replica.port}",
        api_key=engine_key(replica.key_nonce),
        slots=replica.slots,
        context_length=replica.context_length,
        # a drained machine finishes what it has and gets nothing new
        state=State.DRAINING if getattr(replica, "node_drained", False) else replica.state,
    )


# -- states --------------------------------------------------------------------------------------------------------------
def model_state(model: ModelConfig, replicas: Iterable[Replica]) -> State:
    """The best state among the replicas. A wanted model none of whose replicas exists yet is pending while a supervisor is
    there to make them; that is not known here, so it counts as stopped only when it is not wanted."""
    states = {State(replica.state) for replica in replicas}
    for state in BEST_FIRST:
        if state in states:
            return state
    return State.PENDING if model.wanted_replicas and not states else State.STOPPED


# -- the API's -----------------------------------------------------------------------------------------------------------
def model_dicts(names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Model objects as the API shows them, all or those named. Three queries; GGUF headers are read once and remembered."""
    models = _with_replicas()
    if names is not None:
        wanted = set(names)
        models = [model for model in models if model.name in wanted]
    learned = memory_learning.learned()
    return [model_dict(model, list(model.running.all()), learned) for model in models]


def model_dict(
    model: ModelConfig, replicas: Sequence[Replica], learned: Mapping[str, int] | None = None
) -> dict[str, Any]:
    entry: dict[str, Any] = {name: getattr(model, key.field) for name, key in config_file.KEYS.items()}
    facts = gguf_facts(model)
    context = model.context_length or next(
        (replica.context_length for replica in replicas if replica.context_length), None
    )
    return {
        **entry,
        "state": str(model_state(model, replicas)),
        "running": [_running(replica) for replica in replicas],
        "gguf": model_folder.facts_object(facts) if facts else {},
        "memory": _memory(model, context, memory_learning.learned() if learned is None else learned),
    }


def _running(replica: Replica) -> dict[str, Any]:
    return {
        "id": replica.pk,
        "node": replica.node,
        "state": replica.state,
        "since": replica.since.isoformat(),
        "error": reasons.text(replica.reason) or None,
        "engine": local.label(replica.engine),
        "memory": {"planned": replica.memory_planned, "measured": replica.memory_measured},
    }


def gguf_facts(model: ModelConfig) -> GgufFacts | None:
    """None when there is no such file, or it is no whole GGUF."""
    try:
        path = model_files.locate(model.file, model.path)
    except (model_files.UnsafePath, OSError):
        return None
    try:
        return inspection.facts_of(path)
    except (GgufError, OSError):
        return None


def planned(model: ModelConfig, context: int | None, learned: Mapping[str, int]) -> memory_plan.Plan | None:
    """None when the model's file cannot be read."""
    facts = gguf_facts(model)
    if facts is None:
        return None
    context = context or min(facts.context_length or memory.DEFAULT_CONTEXT, memory.DEFAULT_CONTEXT)
    return memory_plan.plan(model, files_of(model, facts), context, learned)


def files_of(model: ModelConfig, facts: GgufFacts) -> memory_plan.Files:
    """What its memory plan counts. ``facts``: of its main file, which need not be there yet."""
    drafts = model.speculative == ModelConfig.Speculative.DRAFT
    return memory_plan.Files(
        model_files.locate(model.file, model.path),
        facts,
        _beside(model, model.draft_file) if drafts else None,
        _beside(model, model.mmproj_file),
        tuple(path for one in model.lora if (path := _beside(model, str(one.get("file", "")))) is not None),
    )


def _beside(model: ModelConfig, file: str) -> Path | None:
    try:
        return model_files.locate(file, model.path) if file else None
    except (model_files.UnsafePath, OSError):
        return None


def _memory(model: ModelConfig, context: int | None, learned: Mapping[str, int]) -> dict[str, Any]:
    plan = planned(model, context, learned)
    if plan is None:
        return {}
    need = plan.need
    return {
        "weights": need.weights,
        "kvCache": need.kv_cache,
        "buffers": need.buffers,
        "promptCache": need.prompt_cache,
        "learned": need.learned,
        "atStart": need.at_start,
        "total": need.most,
    }


# -- the supervisor's ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OnDemandRules:
    """When a model that is started when asked for may go again. ``ttl``: seconds without requests."""

    ttl: float
    pinned: bool
    group: str


@dataclass(frozen=True)
class WantedModel:
    """What should run of one model. ``replicas`` of one on demand: when it is loaded."""

    id: int
    name: str
    replicas: int
    wanted: Wanted
    on_demand: OnDemandRules | None = None


def wanted_models() -> list[WantedModel]:
    """One query; models that should not run are there with 0 replicas."""
    return [
        WantedModel(
            id=model.pk,
            name=model.name,
            replicas=model.replicas if model.is_served else 0,
            on_demand=_rules(model) if model.is_on_demand else None,
            wanted=Wanted(**{field.name: getattr(model, field.name) for field in fields(Wanted)}),
        )
        for model in ModelConfig.objects.all()
    ]


def _rules(model: ModelConfig) -> OnDemandRules:
    ttl = settings.ON_DEMAND_TTL if model.ttl is None else model.ttl
    return OnDemandRules(float(ttl), model.pinned, model.run_group)
