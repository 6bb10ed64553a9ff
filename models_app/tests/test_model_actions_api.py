from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.test import AsyncClient
from django.utils import timezone

from models_app import reasons
from models_app.api import actions
from models_app.models import ModelConfig, Replica
from models_app.states import State
from tests.api_callers import assert_error, client_of, forbidden_below, statuses, token_of

URL = "/api/v1/models/qwen2.5:7b"


@pytest.fixture(autouse=True)
def home(settings, tmp_path, monkeypatch):
    settings.HOME_DIR, settings.RUN_DIR = tmp_path, tmp_path / "run"
    settings.MODELS_PATH, settings.MODEL_CONFIG_PATH = tmp_path, tmp_path / "model_config.json"
    monkeypatch.setattr(actions, "LOOK_SECONDS", 0.01)


def make(active: bool = True, state: State | None = State.READY, **fields: object) -> ModelConfig:
    model = ModelConfig.objects.create(name="qwen2.5:7b", file="q.gguf", active=active)
    if state is not None:
        Replica.objects.create(model=model, number=1, node="box", state=state, since=timezone.now(), **fields)
    return model


async def until(rows: QuerySet[ModelConfig]) -> None:
    """Returns when there is such a row."""
    for _look in range(2000):
        if await rows.aexists():
            return
        await asyncio.sleep(0.005)
    pytest.fail("the request wrote nothing")


@pytest.mark.django_db
class TestAsking:
    @pytest.mark.parametrize("action", ["start", "stop", "restart", "go-back"])
    def test_who(self, action):
        make()
        ModelConfig.objects.update(last_version={"context_length": 64})
        assert statuses("post", f"{URL}/{action}") == {**forbidden_below("operator"), "operator": 202, "admin": 202}

    def test_start_and_stop_write_what_is_wanted(self):
        make(active=False, state=None)
        client = client_of("operator")
        body = client.post(f"{URL}/start").json()
        assert body == {"modelName": "qwen2.5:7b", "wanted": "ready", "state": "pending"}
        assert ModelConfig.objects.get().active
        assert client.post(f"{URL}/stop").json()["wanted"] == "stopped"
        assert not ModelConfig.objects.get().active

    def test_back_to_the_last_version_and_forth(self):
        make()
        client = client_of("operator")
        assert_error(client.post(f"{URL}/go-back"), 409, "no_last_version")
        client.patch(URL, {"contextLength": 1024, "description": "x"}, format="json")
        client.patch(URL, {"description": "new"}, format="json")
        assert client.post(f"{URL}/go-back").status_code == 202
        model = ModelConfig.objects.get()
        assert (model.context_length, model.description) == (None, "new"), "what an engine sees, nothing else"
        client.post(f"{URL}/go-back")
        assert ModelConfig.objects.get().context_length == 1024

    def test_restart_asks_for_new_replicas(self):
        make()
        before = ModelConfig.objects.get().restart_number
        client_of("operator").post(f"{URL}/restart")
        assert ModelConfig.objects.get().restart_number == before + 1

    def test_starting_what_has_given_up_tries_anew(self):
        make(state=State.FAILED)
        client_of("operator").post(f"{URL}/start")
        assert ModelConfig.objects.get().restart_number == 1

    @pytest.mark.parametrize("action", ["start", "stop", "restart"])
    def test_an_unknown_model(self, action):
        path = f"/api/v1/models/nobody/{action}"
        assert_error(client_of("operator").post(path), 404, "model_not_found")

    @pytest.mark.parametrize("query", ["wait=-1", "wait=301", "wait=x", "wait=nan", "wiat=3"])
    def test_wrong_waits(self, query):
        make(active=False)
        assert_error(client_of("operator").post(f"{URL}/start?{query}"), 400, "invalid_request")
        assert not ModelConfig.objects.get().active  # nothing was written

    def test_waiting_for_what_is_already_so(self):
        make()
        response = client_of("operator").post(f"{URL}/start?wait=30")
        assert (response.status_code, response.json()["state"]) == (200, "ready")


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    @staticmethod
    async def post(path: str):
        token = await sync_to_async(token_of)("operator")
        return await AsyncClient().post(path, headers={"Authorization": f"Bearer {token}"})

    @staticmethod
    async def becomes(state: State, **fields: object) -> None:
        now = await sync_to_async(timezone.now)()
        assert await Replica.objects.aupdate(state=state, since=now, **fields) == 1

    async def answer_when(self, path: str, state: State, **fields: object):
        """The answer, which must not come before the state is there."""
        asking = asyncio.create_task(self.post(path))
        await until(ModelConfig.objects.filter(updated_at__gt=self.made))
        assert not asking.done()
        await self.becomes(state, **fields)
        return await asyncio.wait_for(asking, 10)

    async def make(self, **fields: object) -> None:
        await sync_to_async(make)(**fields)
        self.made = (await ModelConfig.objects.aget()).updated_at

    async def test_start_answers_when_it_is_ready(self):
        await self.make(active=False, state=State.LOADING)
        response = await self.answer_when(f"{URL}/start?wait=30", State.READY)
        assert (response.status_code, response.json()["state"]) == (200, "ready")

    async def test_stop_answers_when_it_is_stopped(self):
        await self.make(state=State.READY)
        response = await self.answer_when(f"{URL}/stop?wait=30", State.STOPPED)
        assert (response.status_code, response.json()["state"]) == (200, "stopped")

    async def test_restart_is_not_satisfied_by_the_old_replica(self):
        await self.make(state=State.READY)
        response = await self.answer_when(f"{URL}/restart?wait=30", State.READY)
        assert (response.status_code, response.json()["state"]) == (200, "ready")

    async def test_a_model_that_gives_up_is_told_at_once_with_the_reason(self):
        await self.make(active=False, state=State.LOADING)
        reason = reasons.reason("file_missing", file="q.gguf", folder="models")
        response = await self.answer_when(f"{URL}/start?wait=300", State.FAILED, reason=reason)
        error = assert_error(response, 504, "state_not_reached")
        assert error["details"]["state"] == "failed"
        assert "q.gguf" in error["message"] == error["details"]["reason"]

    async def test_an_old_failure_is_not_the_answer_to_a_new_start(self):
        await self.make(state=State.FAILED)
        response = await self.answer_when(f"{URL}/start?wait=30", State.READY)
        assert response.status_code == 200

    async def test_the_time_ends(self):
        await self.make(active=False, state=State.LOADING)
        error = assert_error(await self.post(f"{URL}/start?wait=0.05"), 504, "state_not_reached")
        assert error["details"] == {"wanted": "ready", "state": "loading", "reason": None}

    async def test_a_model_removed_meanwhile_ends_the_wait(self):
        await self.make(active=False, state=State.LOADING)
        asking = asyncio.create_task(self.post(f"{URL}/start?wait=300"))
        await until(ModelConfig.objects.filter(active=True))
        await sync_to_async(ModelConfig.objects.all().delete)()
        assert (await asyncio.wait_for(asking, 10)).status_code == 504
