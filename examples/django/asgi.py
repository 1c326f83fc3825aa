"""The newsroom: an asynchronous Django site whose requests become traces.

Run it with `uvicorn asgi:application --lifespan on`. Where its traces go is for the environment to say, for example
`OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318`.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.core.asgi import get_asgi_application

import rvh_trace
from rvh_trace import install_task_factory
from rvh_trace.django import wrap_application

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
rvh_trace.init_tracing(service_name="newsroom")
site = wrap_application(get_asgi_application())  # one span a request; settings.MIDDLEWARE has the other half


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await site(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Django has none of its own: without one, the spans of the last seconds are lost when uvicorn is stopped."""
    await receive()  # lifespan.startup
    install_task_factory()  # from here on, a task created inside a span becomes a child of that span
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await rvh_trace.ashutdown()  # sends what is left
    await send({"type": "lifespan.shutdown.complete"})
