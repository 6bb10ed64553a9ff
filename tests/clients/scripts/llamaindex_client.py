"""LlamaIndex, by its packages for services that are like OpenAI."""

from __future__ import annotations

from asked import MODEL, QUESTION, TEXTS, WIDTH, Weather, get_weather
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

HEADING = "LlamaIndex"
MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def chat(llm: OpenAILike) -> None:
    answer = llm.chat(MESSAGES, max_tokens=8)
    assert answer.message.content
    assert answer.raw.model == MODEL
    assert llm.complete(QUESTION, max_tokens=8).text


def stream(llm: OpenAILike) -> None:
    pieces = list(llm.stream_chat(MESSAGES, max_tokens=8))
    assert 1 < len([piece for piece in pieces if piece.delta]) <= 8
    assert "".join(piece.delta or "" for piece in pieces) == pieces[-1].message.content


def tools(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(get_weather)
    answer = llm.chat_with_tools([tool], user_msg=QUESTION, tool_required=True, max_tokens=128)
    [call, *_] = llm.get_tool_calls_from_response(answer)
    assert call.tool_name == "get_weather"
    given = str(tool.call(**call.tool_kwargs))
    assert given.startswith("It rains in ")
    told = ChatMessage(role="tool", content=given, additional_kwargs={"tool_call_id": call.tool_id})
    assert llm.chat([*MESSAGES, answer.message, told], max_tokens=8).message.content


def json_schema(llm: OpenAILike) -> None:
    formed = llm.structured_predict(Weather, PromptTemplate(QUESTION))
    assert isinstance(formed, Weather)
    assert isinstance(llm.as_structured_llm(Weather).chat(MESSAGES).raw, Weather)


def embeddings(embed_model: OpenAILikeEmbedding) -> None:
    vectors = embed_model.get_text_embedding_batch(TEXTS)
    assert {len(vector) for vector in vectors} == {WIDTH}
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embed_model)
    [found] = index.as_retriever(similarity_top_k=1).retrieve(TEXTS[2])
    assert found.text == TEXTS[2]
