"""A CSV file that is sent while it is read from the database."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

# A cell that begins with one of these is a formula to a spreadsheet.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
# Columns of micro-credits. Who reads a file has no description beside it, so there they say so in their names.
AMOUNTS = frozenset({"cost", "available_change", "held_change"})


def in_micro_credits(name: str, amounts: Collection[str] = AMOUNTS) -> str:
    return f"{name}_micro_credits" if name in amounts else name


def is_for_a_browser(request: Request) -> bool:
    """Somebody followed a link and will open the file in a spreadsheet; programs send tokens or keys."""
    return isinstance(request.successful_authenticator, SessionAuthentication)


class CsvAnswer(StreamingHttpResponse):
    """``pages`` is read one page at a time, also under ASGI, where Django itself would first collect all of them.

    ``marked`` files begin with a byte order mark: without it Excel takes UTF-8 for something else.
    """

    def __init__(
        self, columns: list[str], pages: Iterable[Iterable[Mapping[str, Any]]], filename: str, *, marked: bool = False
    ) -> None:
        super().__init__(_lines(columns, pages, "\ufeff" if marked else ""), content_type="text/csv; charset=utf-8")
        self["Content-Disposition"] = f'attachment; filename="{filename}"'

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = cast(Iterator[bytes], self.streaming_content)  # a middleware may have wrapped it
        while (chunk := await sync_to_async(partial(next, chunks, None))()) is not None:
            yield chunk


def _lines(columns: list[str], pages: Iterable[Iterable[Mapping[str, Any]]], mark: str) -> Iterator[str]:
    buffer = io.StringIO()
    buffer.write(mark)
    writer = csv.writer(buffer)
    writer.writerow(map(in_micro_credits, columns))
    for page in pages:
        writer.writerows([_cell(row[column]) for column in columns] for row in page)
        yield _emptied(buffer)
    yield _emptied(buffer)


def _emptied(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_SIGNS) else value
