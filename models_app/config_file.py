"""``model_config.json``: reading it with line numbers, checking its entries, writing it back. No database here.

What is wrong is collected, never raised: a broken file or entry is a ``Problem`` with a line and a reason, the rest goes on.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import TextChoices
from django.utils.translation import gettext as _

from models_app import model_files, placement
from models_app.models import LONGEST_NAME, MODEL_NAME, ModelConfig

MAX_BYTES = 10 * 1024 * 1024
LIST = "models"
MOST_ADAPTERS = 16
MOST_CORES_TEXT = 500
MOST_ALIASES = 32
MOST_SHARES = 8
# As a model's name, and in parts with "/" as hubs have it: clients written for another service keep the name they know.
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*")


@dataclass(frozen=True)
class Problem:
    line: int
    reason: str

    def __iter__(self) -> Iterator[Any]:  # as a pair: for line, reason in problems
        return iter((self.line, self.reason))


@dataclass(frozen=True)
class Entry:
    """A good entry: its values by the names of ModelConfig's fields, and itself as it stands in the file."""

    line: int
    values: dict[str, Any]
    raw: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["name"])


@dataclass
class ConfigFile:
    document: dict[str, Any] | None = None  # None: there is no file, or it cannot be used at all
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names_of_bad: set[str] = field(default_factory=set)
    has_nameless: bool = False
    missing: bool = False


class BadValue(ValueError):
    """What is wrong with one value, in words."""


# -- what a value must be ------------------------------------------------------------------------------------------------
def _text(most: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most or "\0" in value:
            raise BadValue(_("must be a text of at most %(most)d characters") % {"most": most})
        return value

    return check


def _whole(low: int, high: int, optional: bool = False) -> Callable[[Any], int | None]:
    def check(value: Any) -> int | None:
        if value is None and optional:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadValue(_("must be a whole number from %(low)d to %(high)d") % {"low": low, "high": high})
        return value

    return check


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not right or not low <= value <= high:
            raise BadValue(_("must be a number from %(low)g to %(high)g") % {"low": low, "high": high})
        return float(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValue(_("must be true or false"))
    return value


def _one_of(choices: type[TextChoices]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices.values:
            raise BadValue(_("must be one of: %(choices)s") % {"choices": ", ".join(choices.values)})
        return str(value)

    return check


def _cores(value: Any) -> str | None:
    """In its shortest form; whether this machine has them is looked at before each start."""
    if value is None or value == "":
        return None
    try:
        found = placement.ranges(placement.parse_cores(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise BadValue(
            _('must be numbers of processors such as "0-7,16-23", below %(most)d') % {"most": placement.MOST_CPUS}
        ) from error
    if len(found) > MOST_CORES_TEXT:
        raise BadValue(_("must be a text of at most %(most)d characters") % {"most": MOST_CORES_TEXT})
    return found


def _lora(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MOST_ADAPTERS:
        raise BadValue(_("must be a list of at most %(most)d adapters") % {"most": MOST_ADAPTERS})
    return [_adapter(one) for one in value]


def _adapter(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value.keys() <= {"file", "scale"} or "file" not in value:
        raise BadValue(_('each adapter must be {"file": "….gguf", "scale": 1.0}'))
    file = _text(255)(value["file"])
    if not file or set(file) & {":", ","}:  # they divide the parts of the engine's flag
        raise BadValue(_("an adapter's file name must not be empty or contain “:” or “,”"))
    return {"file": file, "scale": _number(-10, 10)(value.get("scale", 1.0))}


def _name(value: Any) -> str:
    try:
        MODEL_NAME(value if isinstance(value, str) else "")
    except ValidationError as error:
        raise BadValue(_("must consist of letters, digits and . _ : - only, at most 128")) from error
    return str(value)


def _aliases(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_ALIASES:
        raise BadValue(_("must be a list of at most %(most)d names") % {"most": MOST_ALIASES})
    for name in value:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not ALIAS.fullmatch(name):
            raise BadValue(_("must be names of letters, digits and . _ : - /, at most 128 characters each"))
    if len(set(value)) < len(value):
        raise BadValue(_("must name each alias once"))
    return list(value)


def _traffic(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or len(value) > MOST_SHARES:
        raise BadValue(
            _('must be at most %(most)d models with a percentage each: {"other": 10}') % {"most": MOST_SHARES}
        )
    percent = _whole(0, 100)
    shares = {_name(name): percent(share) or 0 for name, share in sorted(value.items())}
    if sum(shares.values()) > 100:
        raise BadValue(_("must be 100 percent together at most"))
    return shares


@dataclass(frozen=True)
class Key:
    """One key of an entry: the field it fills, its check, and what stands for a key that is not there."""

    field: str
    check: Callable[[Any], Any]
    default: Any = None


KEYS: dict[str, Key] = {
    "modelName": Key("name", _name),
    "modelFile": Key("file", _text(255)),
    "modelPath": Key("path", _text(1000), "models/"),
    "contextLength": Key("context_length", _whole(64, 16_777_216, optional=True)),
    "maxTokens": Key("max_tokens", _whole(1, 16_777_216), 2048),
    "temperature": Key("temperature", _number(0, 5), 0.7),
    "topP": Key("top_p", _number(0, 1), 0.8),
    "repeatPenalty": Key("repeat_penalty", _number(0, 10), 1.1),
    "threads": Key("threads", _whole(1, 1024, optional=True)),
    "gpuLayers": Key("gpu_layers", _whole(0, 10_000), 0),
    "active": Key("active", _flag, True),
    "description": Key("description", _text(10_000), ""),
    "replicas": Key("replicas", _whole(1, 64), 1),
    "slots": Key("slots", _whole(1, 256), 2),
    "policy": Key("policy", _one_of(ModelConfig.Policy), "always"),
    "ttl": Key("ttl", _whole(0, 31_536_000, optional=True)),
    "pinned": Key("pinned", _flag, False),
    "group": Key("run_group", _text(64), ""),
    "embeddings": Key("embeddings", _flag, False),
    "rerank": Key("rerank", _flag, False),
    "batchThreads": Key("batch_threads", _whole(1, 1024, optional=True)),
    "ubatchSize": Key("ubatch", _whole(16, 8192, optional=True)),
    "cacheType": Key("cache_type", _one_of(ModelConfig.CacheType), "f16"),
    "flashAttention": Key("flash_attention", _one_of(ModelConfig.Switch), "auto"),
    "promptCache": Key("prompt_cache", _whole(0, 1_048_576), 256),
    "speculative": Key("speculative", _one_of(ModelConfig.Speculative), "off"),
    "draftFile": Key("draft_file", _text(255), ""),
    "mmprojFile": Key("mmproj_file", _text(255), ""),
    "loraAdapters": Key("lora", _lora, []),
    "chatTemplate": Key("chat_template", _text(100_000), ""),
    "cores": Key("cores", _cores),
    "numa": Key("numa", _one_of(ModelConfig.Numa), "off"),
    "aliases": Key("aliases", _aliases, []),
    "default": Key("is_default", _flag, False),
    "systemPrompt": Key("system_prompt", _text(100_000), ""),
    "traffic": Key("traffic", _traffic, {}),
}
FIELD_TO_KEY = {key.field: name for name, key in KEYS.items()}


# -- reading -------------------------------------------------------------------------------------------------------------
def read(path: Path) -> ConfigFile:
    try:
        if path.stat().st_size > MAX_BYTES:
            return _unusable(1, _("is too large to be a model configuration"))
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ConfigFile(missing=True)
    except UnicodeDecodeError as error:
        return _unusable(1, _("is not UTF-8 text (byte %(at)d); save it as UTF-8") % {"at": error.start})
    except OSError as error:
        return _unusable(0, _("cannot be read: %(error)s") % {"error": error.strerror or error})
    return parse(text)


def parse(text: str) -> ConfigFile:
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        reason = _("not valid JSON at column %(column)d: %(reason)s. Nothing was changed; correct this line.")
        return _unusable(error.lineno, reason % {"column": error.colno, "reason": error.msg})
    except (ValueError, RecursionError) as error:
        return _unusable(1, _("not valid JSON: %(reason)s") % {"reason": error})
    if not isinstance(document, dict) or not isinstance(document.get(LIST), list):
        return _unusable(1, _('must be {"models": [ … ]}; see the example in README.md'))
    config = ConfigFile(document)
    for entry, offset in zip(document[LIST], _entry_offsets(text), strict=False):
        _take_entry(config, entry, text.count("\n", 0, offset) + 1)
    return config


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _unusable(line: int, reason: str) -> ConfigFile:
    return ConfigFile(problems=[Problem(line, reason)])


def _entry_offsets(text: str) -> Iterator[int]:
    """Where each entry of the list begins in a text that is known to be valid."""
    decode = json.JSONDecoder().raw_decode
    position = _after(text, 0, "{")
    while True:
        key, position = decode(text, _skip_space(text, position))
        position = _skip_space(text, _after(text, position, ":"))
        if key == LIST and text[position] == "[":
            break
        position = _after(text, decode(text, position)[1], ",")
    position = _skip_space(text, position + 1)
    while text[position] != "]":
        yield position
        position = _skip_space(text, decode(text, position)[1])
        if text[position] == ",":
            position = _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _after(text: str, position: int, mark: str) -> int:
    return text.index(mark, position) + 1


def _take_entry(config: ConfigFile, raw: Any, line: int) -> None:
    name = raw.get("modelName") if isinstance(raw, dict) else None
    known = {entry.name for entry in config.entries} | config.names_of_bad
    try:
        if not isinstance(raw, dict):
            raise BadValue(_("an entry must be { … }"))
        values = values_of(raw)
        if name in known:
            raise BadValue(_("modelName %(name)s is there twice; give each model its own name") % {"name": name})
        if values["is_default"] and (other := next((one for one in config.entries if one.values["is_default"]), None)):
            raise BadValue(_("default is there twice; %(name)s has it already") % {"name": other.name})
    except BadValue as error:
        label = f"{name}: " if isinstance(name, str) and name else ""
        config.problems.append(Problem(line, f"{label}{error}"))
        if isinstance(name, str) and name:
            config.names_of_bad.add(name)
        else:
            config.has_nameless = True
        return
    config.entries.append(Entry(line, values, raw))


def values_of(raw: dict[str, Any]) -> dict[str, Any]:
    """An entry's values by field, with defaults for keys that are not there. Raises BadValue naming the key."""
    for required in ("modelName", "modelFile"):
        if required not in raw:
            raise BadValue(_("%(key)s is missing") % {"key": required})
    values: dict[str, Any] = {}
    for name, key in KEYS.items():
        try:
            values[key.field] = key.check(raw[name]) if name in raw else key.default
        except BadValue as error:
            raise BadValue(_("%(key)s %(problem)s") % {"key": name, "problem": error}) from error
    for field_name, problem in problems_together(values).items():
        raise BadValue(_("%(key)s %(problem)s") % {"key": FIELD_TO_KEY[field_name], "problem": problem})
    for name, file in files_of(values):
        try:
            model_files.locate(file, values["path"])
        except (model_files.UnsafePath, OSError, RuntimeError) as error:
            problem = _("%(key)s %(file)s lies outside of the models folder; name a file inside it")
            raise BadValue(problem % {"key": FIELD_TO_KEY[name], "file": file}) from error
    values["extra"] = {name: value for name, value in raw.items() if name not in KEYS}
    return values


def problems_together(values: dict[str, Any]) -> dict[str, str]:
    """What is wrong only beside another value, by field."""
    problems = {}
    if values["cache_type"] != "f16" and values["flash_attention"] == "off":
        problems["cache_type"] = _("fewer than 16 bits need flash attention")
    if values["speculative"] == "draft" and not values["draft_file"]:
        problems["draft_file"] = _("is needed to guess with a draft model")
    if values["cores"] and values["numa"] != "off":
        problems["numa"] = _("must be off where cores are named: the engine would leave them")
    if values["name"] in values["aliases"]:
        problems["aliases"] = _("must be other names than the model's own")
    if values["name"] in values["traffic"]:
        problems["traffic"] = _("must name other models; what is left over stays with this one")
    elif values["traffic"] and values["embeddings"] and not values["rerank"]:
        problems["traffic"] = _("is not possible: vectors of two models cannot be compared")
    return problems


def files_of(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Every file that the values name, beside its field."""
    named = [(field, values[field]) for field in ("file", "draft_file", "mmproj_file")]
    return [*((field, file) for field, file in named if file or field == "file"),
            *(("lora", one["file"]) for one in values["lora"])]  # fmt: skip


# -- writing -------------------------------------------------------------------------------------------------------------
def entry_for(values: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    """The entry that says ``values`` (by field). Keys of ``old`` keep their order; unwritten defaults stay unwritten."""
    entry = dict(old or {})
    for name, key in KEYS.items():
        value = values[key.field]
        if name in entry:
            if entry[name] != value:
                entry[name] = value
        elif old is None or value != key.default:
            entry[name] = value
    return {**entry, **{name: value for name, value in values.get("extra", {}).items() if name not in entry}}


def write(path: Path, document: dict[str, Any]) -> None:
    """Replaces the file as a whole, so that nobody ever reads half of it. Raises OSError."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()  # a file that is a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "read-only", str(target))
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
