"""Answers an inference request. The HTTP endpoints and the chat page both call ``infer``."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import monotonic

from gateway import bodies, dialect, free, metrics, resolving
from gateway.bodies import Plan
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.errors import GatewayError
from gateway.exchange import Answer, Exchange, InferenceRequest, slot_request
from gateway.models_directory import directory
from gateway.places import Place
from gateway.slots import ModelPool

logger = logging.getLogger(__name__)

# Ends the id of a request that another model than the one asked for is to answer: when it fails, holds and records are two.
TRIAL = "-trial"


async def infer(request: InferenceRequest) -> Answer:
    """Raises GatewayError. Cancelling the call means that the client went away."""
    endpoint = ENDPOINTS[request.endpoint]
    if request.stream is not None and request.stream is not bool(request.body.get("stream")):
        request.body, request.raw = {**request.body, "stream": request.stream}, None
    if (body := dialect.understood(endpoint, request.body)) is not request.body:
        request.body, request.raw = body, None
    plan = bodies.check(endpoint, request.body)
    if (body := bodies.with_figures(endpoint, request.body)) is not request.body:
        request.body, request.raw = body, None
    asked, trial = await resolving.pools_for(request.caller, endpoint, request.body, plan.model)
    pools = [asked, trial] if trial is not None else [asked]
    policies = [directory().policy(pool.view.name) for pool in pools]
    tokens = plan.likely_read(asked.view.longest_context) + (plan.asked_tokens or 0) * plan.answers
    place = await Place.take(request.caller, policies, request.request_id, tokens)
    request.early.update(place.headers)
    if trial is not None:
        # Whoever asked for the one model is not to suffer from a trial of the other.
        own = replace(request, request_id=request.request_id + TRIAL)
        request.early["x-request-id"] = own.request_id  # for both: whoever waits first is told of
        try:
            with place.kept_after(GatewayError):
                return await _infer(own, endpoint, replace(plan), trial, place)
        except GatewayError as error:
            logger.warning("%s gave no answer for %s: %s", trial.view.name, asked.view.name, error.code)
            metrics.RETRIES.labels(asked.view.name).inc()
            request.early["x-request-id"] = request.request_id
    return await _infer(request, endpoint, plan, asked, place)


async def _infer(request: InferenceRequest, endpoint: Endpoint, plan: Plan, pool: ModelPool, place: Place) -> Answer:
    """By that model. Changes ``request`` and ``plan``, and leaves ``place``."""
    body, tokens = resolving.fitted(endpoint, request.body, pool.view)
    if body is not request.body:
        request.body, request.raw = body, None
        plan.prompt_bound += tokens
    if endpoint.priced:
        price = directory().policy(pool.view.name).price
        return await Exchange(request, endpoint, plan, pool, price, place).run()
    try:
        return await _ask_freely(request, endpoint, pool, place)
    finally:
        place.leave(0)


async def _ask_freely(request: InferenceRequest, endpoint: Endpoint, pool: ModelPool, place: Place) -> Answer:
    raw = request.raw if request.raw is not None else bodies.write(request.body)
    found = await free.ask(pool, endpoint, raw, slot_request(request, raw), request.on_queue)
    headers = {
        "content-type": found.kind,
        "x-request-id": request.request_id,
        "x-replica": found.replica.label,
        "x-queue-ms": str(round(1000 * found.waited)),
        **found.standing.headers,
        "openai-processing-ms": str(round(1000 * (monotonic() - request.arrived))),
        **request.early,
    }
    return Answer(200, headers, body=found.body, replica=found.replica.label, model=pool.view.name)
