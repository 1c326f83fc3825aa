"""The stock service: the second half of a distributed trace.

Run it with `uvicorn stock:app --port 8001`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

import rvh_trace
from rvh_trace import RvhTraceMiddleware, install_task_factory, span

SHELF = Counter(tea=1000, mug=1000, teapot=1000)


class Reservation(BaseModel):
    skus: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    install_task_factory()
    yield
    await rvh_trace.ashutdown()


rvh_trace.init_tracing(service_name="stock")
app = FastAPI(title="stock", lifespan=lifespan)
app.add_middleware(RvhTraceMiddleware)  # reads `traceparent`: the caller's span is the parent


@app.post("/reservations", status_code=201)
async def reserve(wanted: Reservation) -> Reservation:
    async with span("take from shelf", {"stock.items": len(wanted.skus)}) as taking:
        for sku in wanted.skus:
            await asyncio.sleep(0.003)
            SHELF[sku] -= 1
            taking.add_event("taken", {"stock.sku": sku, "stock.left": SHELF[sku]})
    return wanted
