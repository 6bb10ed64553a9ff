"""The inference endpoints in the OpenAPI description. They are no DRF views, so they are written down here."""

from __future__ import annotations

from typing import Any

from gateway.app import PREFIXES
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.errors import Protocol
from gateway.http import LONGEST_TIMEOUT, QUEUE_TIMEOUT

# What the service answers in the end; every other refusal looks the same and stands as "default".
ERROR_STATUSES = ("400", "401", "403", "404", "413", "429", "502", "503", "default")
_ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_TIMEOUT: dict[str, Any] = {
    "name": QUEUE_TIMEOUT.decode(),
    "in": "header",
    "description": "the longest that the client waits for the answer to begin; refused with 503 as soon as it will take longer",
    "schema": {"type": "integer", "minimum": 0, "maximum": LONGEST_TIMEOUT},
}
_STANDING: dict[str, Any] = {
    name: {"description": f"{what}; 0: it did not wait", "schema": {"type": "integer", "minimum": 0}}
    for name, what in {
        "x-queue-position": "place in the line when the request joined it",
        "x-queue-estimate-ms": "how long it was likely to wait then",
    }.items()
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _error(protocol: Protocol) -> dict[str, Any]:
    """The body of an error; what ``gateway.errors`` makes."""
    text = {"type": "string"}
    if protocol is Protocol.REST:
        return {"$ref": "#/components/schemas/Error"}
    if protocol is Protocol.ANTHROPIC:
        return _object(type=text, error=_object(type=text, message=text))
    return _object(error=_object(message=text, type=text, param={**text, "nullable": True}, code=text))


def _object(**properties: Any) -> dict[str, Any]:
    """All of them, always."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _operation(
    identity: str, summary: str, protocol: Protocol, body: dict[str, Any] | None = None, *, streams: bool = False
) -> dict[str, Any]:
    content = _json(_ANY_OBJECT) | ({"text/event-stream": {"schema": {}}} if streams else {})
    responses = {"200": {"description": "", "content": content}}
    responses |= {status: {"description": "", "content": _json(_error(protocol))} for status in ERROR_STATUSES}
    operation: dict[str, Any] = {
        "operationId": identity,
        "summary": summary,
        "tags": ["inference"],
        "security": [{"bearer": []}, {"api_key": []}, {"session": []}],
        "responses": responses,
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
        operation["parameters"] = [_TIMEOUT]
        for status in ("200", "503"):
            responses[status]["headers"] = _STANDING
    return operation


def _body(endpoint: Endpoint) -> dict[str, Any]:
    types: dict[type, dict[str, Any]] = {
        str: {"type": "string"},
        list: {"type": "array", "items": {}},
        dict: _ANY_OBJECT,
    }
    accepted = [types[kind] for kind in endpoint.required_types]
    properties: dict[str, Any] = {
        "model": {"type": "string"},
        endpoint.required: accepted[0] if len(accepted) == 1 else {"oneOf": accepted},
        **{name: {"type": "string"} for name in (*endpoint.also_required, *endpoint.may_be_texts)},
    }
    if endpoint.generates:
        properties |= {
            "stream": {"type": "boolean", "default": False},
            endpoint.limit_fields[0]: {"type": "integer", "minimum": 0},
            "temperature": {"type": "number"},
            "top_p": {"type": "number"},
        }
    required = [endpoint.required, *endpoint.also_required]
    # Without "model" the default model answers, if there is one.
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": True}


def _native() -> dict[str, Any]:
    body = {
        "type": "object",
        "required": ["message"],
        "additionalProperties": False,
        "properties": {
            "message": {"type": "string"},
            "max_tokens": {"type": "integer", "minimum": 1},
            "temperature": {"type": "number", "minimum": 0, "maximum": 5},
            "top_p": {"type": "number", "minimum": 0, "maximum": 1},
            "stream": {"type": "boolean", "default": False},
            "conversation": {"type": "string"},
        },
    }
    operation = _operation("models_chat", "Ask a model", Protocol.REST, body, streams=True)
    operation["parameters"] += [_in_path("name")]
    return operation


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _paths(prefix: str, suffix: str) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS.values():
        identity = f"inference_{endpoint.name.replace('.', '_')}{suffix}"
        summary = f"{endpoint.path} as llama-server has it"
        operation = _operation(identity, summary, endpoint.protocol, _body(endpoint), streams=endpoint.generates)
        paths[prefix + endpoint.path] = {"post": operation}
    paths[f"{prefix}/models"] = {
        "get": _operation(f"inference_models{suffix}", "Models there are, in OpenAI's form", Protocol.OPENAI)
    }
    one = _operation(f"inference_model{suffix}", "One model, in OpenAI's form", Protocol.OPENAI)
    paths[f"{prefix}/models/{{id}}"] = {"get": {**one, "parameters": [_in_path("id")]}}
    return paths


def add_inference_paths(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """drf-spectacular's postprocessing hook."""
    for number, prefix in enumerate(PREFIXES):
        result["paths"].update(_paths(prefix, "" if not number else "_compatible"))
    result["paths"]["/api/v1/models/{name}/chat"] = {"post": _native()}
    return result
