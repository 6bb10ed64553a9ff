"""Reads about models and replicas; the gateway's snapshot, the API's model objects, and what the supervisor should do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch

from cluster.models import Node
from models_app import config_file, memory, model_files, reasons
from models_app.command_line import Wanted
from models_app.gguf import GgufError, GgufFacts, read_facts
from models_app.models import ModelConfig, Replica
from models_app.process import engine_key
from models_app.states import LIVE, State

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


def names() -> list[str]:
    return list(ModelConfig.objects.values_list("name", flat=True))


# -- the gateway's -------------------------------------------------------------------------------------------------------
def serving_snapshot() -> dict[str, ModelView]:
    """All models that should run or do, by name. Two queries; the gateway asks twice a second, in a thread."""
    views = {}
    for model in _with_replicas():
        replicas = list(model.running.all())
        if model.wanted_replicas or any(replica.state in LIVE for replica in replicas):
            views[model.name] = _model_view(model, replicas)
    return views


def _with_replicas() -> Iterable[ModelConfig]:
    drained = Exists(Node.objects.filter(name=OuterRef("node"), drained=True))
    replicas = Replica.objects.order_by("number").annotate(node_drained=drained)
    return ModelConfig.objects.prefetch_related(Prefetch("running", replicas))


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
    """Model objects as the API shows them, all or those named. Two queries; GGUF headers are read once and remembered."""
    models = _with_replicas()
    if names is not None:
        wanted = set(names)
        models = [model for model in models if model.name in wanted]
    return [model_dict(model, list(model.running.all())) for model in models]


def model_dict(model: ModelConfig, replicas: Sequence[Replica]) -> dict[str, Any]:
    entry: dict[str, Any] = {name: getattr(model, key.field) for name, key in config_file.KEYS.items()}
    facts = gguf_facts(model)
    context = model.context_length or next(
        (replica.context_length for replica in replicas if replica.context_length), None
    )
    return {
        **entry,
        "state": str(model_state(model, replicas)),
        "running": [_running(replica) for replica in replicas],
        "gguf": _gguf(facts),
        "memory": _memory(facts, context, model.slots),
    }


def _running(replica: Replica) -> dict[str, Any]:
    return {
        "id": replica.pk,
        "node": replica.node,
        "state": replica.state,
        "since": replica.since.isoformat(),
        "error": reasons.text(replica.reason) or None,
    }


def gguf_facts(model: ModelConfig) -> GgufFacts | None:
    """None when there is no such file, or it is no whole GGUF."""
    try:
        path = model_files.locate(model.file, model.path)
    except (model_files.UnsafePath, OSError):
        return None
    identity = model_files.identity(path)
    return _facts(path, identity) if identity else None


@lru_cache(maxsize=256)
def _facts(path: Path, _identity: tuple[int, int, int]) -> GgufFacts | None:
    try:
        return read_facts(path)
    except (GgufError, OSError):
        return None


def _gguf(facts: GgufFacts | None) -> dict[str, Any]:
    if facts is None:
        return {}
    camel = {"context_length": "contextLength", "embedding_length": "embeddingLength", "kv_heads": "kvHeads"}
    camel |= {"key_length": "keyLength", "value_length": "valueLength", "chat_template": "chatTemplate"}
    return {camel.get(name, name): value for name, value in asdict(facts).items()}


def _memory(facts: GgufFacts | None, context: int | None, slots: int) -> dict[str, Any]:
    if facts is None:
        return {}
    need = memory.need(
        facts, context or min(facts.context_length or memory.DEFAULT_CONTEXT, memory.DEFAULT_CONTEXT), slots
    )
    return {
        "weights": need.weights,
        "kvCache": need.kv_cache,
        "buffers": need.buffers,
        "promptCache": need.prompt_cache,
        "total": need.most,
    }


# -- the supervisor's ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WantedModel:
    """What should run of one model."""

    id: int
    name: str
    replicas: int
    wanted: Wanted


def wanted_models() -> list[WantedModel]:
    """One query; models that should not run are there with 0 replicas."""
    return [
        WantedModel(
            id=model.pk,
            name=model.name,
            replicas=model.wanted_replicas,
            wanted=Wanted(
                name=model.name,
                file=model.file,
                path=model.path,
                context_length=model.context_length,
                max_tokens=model.max_tokens,
                temperature=model.temperature,
                top_p=model.top_p,
                repeat_penalty=model.repeat_penalty,
                threads=model.threads,
                gpu_layers=model.gpu_layers,
                slots=model.slots,
                embeddings=model.embeddings,
                restart_number=model.restart_number,
            ),
        )
        for model in ModelConfig.objects.all()
    ]
