"""Which models should run (written by ``models_app.services``) and which do (written by the supervisor only)."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from models_app.downloads.models import Download as Download
from models_app.states import State

LONGEST_NAME = 128
MODEL_NAME = RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z", _("letters, digits and . _ : - only, at most 128"))


class ModelConfig(models.Model):
    """One entry of ``model_config.json``: a name clients use, a file, and the settings of its llama-servers."""

    class Policy(models.TextChoices):
        ALWAYS = "always", _("always running")
        ON_DEMAND = "on_demand", _("started when asked for")
        OFF = "off", _("off")

    class CacheType(models.TextChoices):
        """Names of ggml's number formats; what they cost stands in ``models_app.memory``."""

        F16 = "f16", _("16 bits (as exact as can be)")
        Q8_0 = "q8_0", _("8 bits (half the memory)")
        Q4_0 = "q4_0", _("4 bits (a quarter, less exact)")

    class Switch(models.TextChoices):
        AUTO = "auto", _("chosen by the engine")
        ON = "on", _("on")
        OFF = "off", _("off")

    class Speculative(models.TextChoices):
        OFF = "off", _("off")
        NGRAM = "ngram", _("from the text so far")
        DRAFT = "draft", _("by a draft model")

    class Numa(models.TextChoices):
        """Names of llama.cpp's ``--numa``."""

        OFF = "off", _("off")
        DISTRIBUTE = "distribute", _("spread over all nodes")
        ISOLATE = "isolate", _("kept in one node")

    name = models.CharField(_("name"), max_length=128, unique=True, validators=[MODEL_NAME])
    file = models.CharField(_("file"), max_length=255)
    path = models.CharField(_("folder"), max_length=1000, blank=True, default="models/")
    # null: chosen for the machine and the model
    context_length = models.PositiveIntegerField(_("context length"), null=True, blank=True)
    max_tokens = models.PositiveIntegerField(
        _("longest answer (tokens)"), default=2048, validators=[MinValueValidator(1)]
    )
    temperature = models.FloatField(
        _("temperature"), default=0.7, validators=[MinValueValidator(0), MaxValueValidator(5)]
    )
    top_p = models.FloatField(_("top p"), default=0.8, validators=[MinValueValidator(0), MaxValueValidator(1)])
    repeat_penalty = models.FloatField(
        _("repeat penalty"), default=1.1, validators=[MinValueValidator(0), MaxValueValidator(10)]
    )
    threads = models.PositiveIntegerField(_("threads"), null=True, blank=True)
    gpu_layers = models.PositiveIntegerField(_("GPU layers"), default=0)
    active = models.BooleanField(_("should run"), default=True)
    description = models.TextField(_("description"), blank=True, default="")
    replicas = models.PositiveSmallIntegerField(
        _("replicas"), default=1, validators=[MinValueValidator(1), MaxValueValidator(64)]
    )
    slots = models.PositiveSmallIntegerField(
        _("slots per replica"), default=2, validators=[MinValueValidator(1), MaxValueValidator(256)]
    )
    policy = models.CharField(_("policy"), max_length=16, choices=Policy, default=Policy.ALWAYS)
    # Of a model that is started when asked for:
    ttl = models.PositiveIntegerField(_("unloaded when idle (seconds)"), null=True, blank=True)  # null: ON_DEMAND_TTL
    pinned = models.BooleanField(_("makes no room"), default=False)
    run_group = models.CharField(_("never together with"), max_length=64, blank=True, default="")
    embeddings = models.BooleanField(_("embedding model"), default=False)
    rerank = models.BooleanField(_("reranking model"), default=False)
    # What a command line of llama.cpp has for speed and memory. null: the engine's default, or chosen for the machine.
    batch_threads = models.PositiveIntegerField(_("threads for prompts"), null=True, blank=True)
    ubatch = models.PositiveIntegerField(_("prompt tokens at once"), null=True, blank=True)
    cache_type = models.CharField(_("context precision"), max_length=8, choices=CacheType, default=CacheType.F16)
    flash_attention = models.CharField(_("flash attention"), max_length=8, choices=Switch, default=Switch.AUTO)
    prompt_cache = models.PositiveIntegerField(_("prompt cache (MiB)"), default=256)
    speculative = models.CharField(_("guessing ahead"), max_length=16, choices=Speculative, default=Speculative.OFF)
    draft_file = models.CharField(_("draft model"), max_length=255, blank=True, default="")
    mmproj_file = models.CharField(_("vision projector"), max_length=255, blank=True, default="")
    # [{"file": "….gguf", "scale": 1.0}]
    lora: models.JSONField[list[dict[str, Any]]] = models.JSONField(_("LoRA adapters"), default=list, blank=True)
    chat_template = models.TextField(_("chat template"), blank=True, default="")
    # Processors such as "0-7,16-23", for all replicas together; null: chosen for the machine
    cores = models.CharField(_("cores"), max_length=500, null=True, blank=True, default=None)  # noqa: DJ001 - null as in JSON
    numa = models.CharField(_("NUMA"), max_length=16, choices=Numa, default=Numa.OFF)
    # Other names for the same model. Which name is whose is kept in ServedName.
    aliases: models.JSONField[list[str]] = models.JSONField(_("aliases"), default=list, blank=True)
    is_default = models.BooleanField(_("default model"), default=False)
    system_prompt = models.TextField(_("system prompt"), blank=True, default="")
    # {"other-model": 10}: so many of a hundred requests for this model are answered by the other one.
    traffic: models.JSONField[dict[str, int]] = models.JSONField(_("traffic share"), default=dict, blank=True)
    # Keys of model_config.json that this version does not know; kept and written back.
    extra: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    # The entry as last read from model_config.json: at the next sync only what changed in the file is applied.
    file_entry: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    # What an engine sees of the settings, by field, as they were before the last change of it: the way back.
    last_version: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    # Raised by "restart": the supervisor replaces replicas that were started for a lower number.
    restart_number = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=models.Q(is_default=True), name="one_default_model_at_most"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def validate_constraints(self, exclude: Any = None) -> None:
        """A second default is no mistake of a person's: ``services`` takes it from the first."""

    @property
    def wanted_replicas(self) -> int:
        """How many replicas should run whether somebody asks or not."""
        return self.replicas if self.active and self.policy == self.Policy.ALWAYS else 0

    @property
    def is_on_demand(self) -> bool:
        """Whether requests load it."""
        return self.active and self.policy == self.Policy.ON_DEMAND

    @property
    def is_served(self) -> bool:
        """Whether requests for it are answered, sooner or later."""
        return self.is_on_demand or bool(self.wanted_replicas)


class ServedName(models.Model):
    """A name that clients may ask for, a model's own or one of its aliases. Here the database itself sees to it that no name
    means two models, whoever writes at the same time. Only ``models_app.names`` writes here."""

    name = models.CharField(max_length=LONGEST_NAME, unique=True)
    model = models.ForeignKey(ModelConfig, on_delete=models.CASCADE, related_name="served_names")

    def __str__(self) -> str:
        return self.name


class Replica(models.Model):
    """One llama-server process of a model. Only the supervisor writes here."""

    model = models.ForeignKey(ModelConfig, on_delete=models.CASCADE, related_name="running", verbose_name=_("model"))
    number = models.PositiveSmallIntegerField(_("number"))
    node = models.CharField(_("machine"), max_length=100)
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.PENDING)
    since = models.DateTimeField(_("since"))
    host = models.CharField(_("host"), max_length=253, default="127.0.0.1")
    port = models.PositiveIntegerField(_("port"), null=True, blank=True)
    pid = models.PositiveIntegerField(_("process"), null=True, blank=True)
    # Start time of the process as the system tells it: a pid alone may belong to somebody else by now.
    pid_started = models.FloatField(null=True, blank=True)
    # The replica's API key is derived from this and the service's secret, so that no key lies in the database.
    key_nonce = models.CharField(max_length=64, blank=True, default="")
    # Hash of the command line it was started with: another one wanted means restart.
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    # The build of the engine it runs, as ``LocalLauncher.version`` names it
    engine = models.CharField(_("engine"), max_length=500, blank=True, default="")
    slots = models.PositiveSmallIntegerField(_("slots"), default=1)
    context_length = models.PositiveIntegerField(_("context per slot"), null=True, blank=True)
    quick_failures = models.PositiveSmallIntegerField(_("failures in a row"), default=0)
    # Bytes: planned before the start (after the first long request), and seen last.
    memory_planned = models.BigIntegerField(_("memory planned"), null=True, blank=True)
    memory_measured = models.BigIntegerField(_("memory measured"), null=True, blank=True)
    memory_key = models.CharField(max_length=64, blank=True, default="")  # of MemoryMeasurement
    # {"code": "...", "params": {...}} of models_app.reasons, so that each reader sees it in their language.
    reason: models.JSONField[dict[str, Any] | None] = models.JSONField(_("last error"), null=True, blank=True)

    class Meta:
        verbose_name = _("replica")
        verbose_name_plural = _("replicas")
        ordering = ["model", "number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="replica_number_once_per_model")]

    def __str__(self) -> str:
        return f"{self.model.name}/{self.number}"


class Demand(models.Model):
    """How much one process wants a model that is started when asked for. Each writes its own rows, by ``models_app.demand``."""

    # No constraint: a report about a model that is deleted in this moment must not keep the others from being written.
    model = models.ForeignKey(ModelConfig, on_delete=models.CASCADE, related_name="demands", db_constraint=False)
    process = models.CharField(max_length=100)
    waiting = models.PositiveIntegerField(default=0)
    waiting_since = models.DateTimeField(null=True)
    under_way = models.PositiveIntegerField(default=0)
    used_at = models.DateTimeField()
    holds_until = models.DateTimeField()  # who has written it is taken for dead after that

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "process"], name="demand_once_per_model_and_process")]

    def __str__(self) -> str:
        return f"{self.process} wants {self.model_id}: {self.waiting} wait, {self.under_way} under way"


class Loading(models.Model):
    """What the supervisor, which alone writes here, has seen of the loading of a model that is started when asked for."""

    model = models.OneToOneField(ModelConfig, on_delete=models.CASCADE, related_name="loading", db_constraint=False)
    seconds = models.FloatField(null=True)  # it took last
    # Names of the models it waits for; null: it waits for none.
    held_up_by: models.JSONField[list[str] | None] = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.model_id}: {self.seconds} s"


class MemoryMeasurement(models.Model):
    """The most memory that a replica of certain files and settings has taken, so that the next plan knows. Only the supervisor
    writes here."""

    key = models.CharField(max_length=64, unique=True)  # models_app.memory_plan.key_of
    measured = models.BigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.key[:8]}: {self.measured}"


class TuningRun(models.Model):
    """One search for the best settings of a model on a machine. Models are named, so that results survive them.

    Somebody makes it (``wanted``) or asks for its end (``stop_wanted``); all else is written by the process that measures, or by
    the supervisor when that process has died.
    """

    class Aim(models.TextChoices):
        LATENCY = "latency", _("one person's answers come fast")
        THROUGHPUT = "throughput", _("many people are answered at once")
        MEMORY = "memory", _("little memory")

    class Stage(models.TextChoices):
        WANTED = "wanted", _("waiting")
        RUNNING = "running", _("measuring")
        DONE = "done", _("finished")
        STOPPED = "stopped", _("stopped")
        FAILED = "failed", _("failed")

    model_name = models.CharField(_("model"), max_length=128, db_index=True)
    stage = models.CharField(_("state"), max_length=16, choices=Stage, default=Stage.WANTED)
    aim = models.CharField(_("aim"), max_length=16, choices=Aim, default=Aim.THROUGHPUT)
    clients = models.PositiveSmallIntegerField(_("people at once"), default=4)
    seconds = models.PositiveIntegerField(_("longest time (seconds)"), default=240)
    apply = models.BooleanField(_("use the result"), default=False)
    stop_wanted = models.BooleanField(default=False)
    pid = models.PositiveIntegerField(null=True, blank=True)
    pid_started = models.FloatField(null=True, blank=True)
    progress = models.FloatField(_("progress"), default=0)  # 0 to 1
    # Name, size and change of the file; processor, cores, memory; version of the engine: what the result holds for.
    file_identity = models.CharField(max_length=300, blank=True, default="")
    machine: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    engine = models.CharField(max_length=300, blank=True, default="")
    before: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    chosen: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    rows: models.JSONField[list[dict[str, Any]]] = models.JSONField(default=list, blank=True)
    gain = models.FloatField(_("gain"), null=True, blank=True)
    # The share of the processor (0 to 1) that others took while it was measured: more than a little, and figures mean less.
    busy = models.FloatField(default=0)
    applied = models.BooleanField(default=False)
    reason: models.JSONField[dict[str, Any] | None] = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("tuning")
        verbose_name_plural = _("tunings")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.model_name}/{self.pk}"

    @property
    def is_over(self) -> bool:
        return self.stage not in {self.Stage.WANTED, self.Stage.RUNNING}
