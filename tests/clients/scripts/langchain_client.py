"""LangChain, by its package for OpenAI."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add

from asked import MODEL, QUESTION, TEXTS, WIDTH, Weather, get_weather
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

HEADING = "LangChain"


def chat(llm: ChatOpenAI) -> None:
    answer = llm.bind(max_tokens=8).invoke(QUESTION)
    assert answer.content
    assert answer.response_metadata["model_name"] == MODEL
    assert 0 < answer.usage_metadata["output_tokens"] <= 8
    assert asyncio.run(llm.bind(max_tokens=8).ainvoke(QUESTION)).content


def stream(llm: ChatOpenAI) -> None:
    """Each piece is a token at least."""
    pieces = list(llm.bind(max_tokens=8).stream(QUESTION, stream_usage=True))
    used = reduce(add, pieces).usage_metadata["output_tokens"]
    assert 1 < len([piece for piece in pieces if piece.content]) <= used <= 8


def tools(llm: ChatOpenAI) -> None:
    weather = tool(get_weather)

    @tool
    def get_time() -> str:
        """The time."""
        return "noon"

    for choice in ("any", "get_weather"):
        bound = llm.bind_tools([get_time, weather], tool_choice=choice).bind(max_tokens=128)
        answer = bound.invoke(QUESTION)
        assert answer.tool_calls
        assert not answer.invalid_tool_calls
    [call] = answer.tool_calls
    given = weather.invoke(call)
    assert given.content.startswith("It rains in ")
    assert llm.bind(max_tokens=8).invoke([HumanMessage(QUESTION), answer, given]).content
    [streamed] = reduce(add, bound.stream(QUESTION)).tool_calls
    assert streamed["name"] == "get_weather"
    assert weather.invoke(streamed).content.startswith("It rains in ")


def json_schema(llm: ChatOpenAI) -> None:
    for method in ("json_schema", "function_calling"):
        assert isinstance(llm.with_structured_output(Weather, method=method).invoke(QUESTION), Weather)


def embeddings(embeddings: OpenAIEmbeddings) -> None:
    vectors = embeddings.embed_documents(TEXTS)
    assert {len(vector) for vector in vectors} == {WIDTH}
    alone = embeddings.embed_query(TEXTS[1])
    assert 0.999 < sum(a * b for a, b in zip(alone, vectors[1], strict=True)) < 1.001
