"""The views: one asynchronous, one synchronous, one that streams, one that fails."""

import asyncio
from collections.abc import AsyncIterator

from django.http import Http404, HttpRequest, JsonResponse, StreamingHttpResponse

from rvh_trace import span

ARTICLES = {"tea": (2019, "On tea"), "mugs": (2020, "Mugs compared"), "teapots": (2020, "A short history of teapots")}


class EmbargoedError(Exception):
    """Not to be shown yet."""


async def show_article(request: HttpRequest, slug: str) -> JsonResponse:
    """Nested spans, and two tasks that overlap."""
    if slug not in ARTICLES:
        raise Http404(slug)
    async with span("compose page", {"newsroom.article": slug}), asyncio.TaskGroup() as tasks:
        comments = tasks.create_task(count_comments(slug))
        related = tasks.create_task(find_related(slug))
    return JsonResponse({"title": ARTICLES[slug][1], "comments": comments.result(), "related": related.result()})


def list_archive(request: HttpRequest, year: str) -> JsonResponse:
    """Synchronous: Django runs it on a thread, in the same trace."""
    with span("read archive", {"newsroom.year": int(year)}):
        return JsonResponse({"titles": [title for published, title in ARTICLES.values() if published == int(year)]})


async def export(request: HttpRequest) -> StreamingHttpResponse:
    """The span of the request lasts until the last line is out."""

    async def lines() -> AsyncIterator[str]:
        for slug, (year, title) in ARTICLES.items():
            with span("export article", {"newsroom.article": slug}):
                await asyncio.sleep(0.002)  # a database would be asked here
                line = f"{year},{title}\n"
            yield line

    return StreamingHttpResponse(lines(), content_type="text/csv")


async def show_draft(request: HttpRequest, slug: str) -> JsonResponse:
    """A request that fails: Django answers 500, the exception is on the span."""
    raise EmbargoedError(f"{slug} is not out yet")


async def count_comments(slug: str) -> int:
    await asyncio.sleep(0.005)
    return len(slug)


async def find_related(slug: str) -> list[str]:
    await asyncio.sleep(0.005)
    return [other for other in ARTICLES if other != slug]
