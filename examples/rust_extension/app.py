"""The shop: a FastAPI service whose prices are worked out in Rust.

Run it with `uvicorn app:app --port 8000`, beside `uvicorn rates:app --port 8001`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pricing
from fastapi import FastAPI

import rvh_trace
from rvh_trace import RvhTraceMiddleware, install_task_factory, span

RATES_URL = os.environ.get("RATES_URL", "http://127.0.0.1:8001")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    install_task_factory()
    yield
    await rvh_trace.ashutdown()


rvh_trace.init_tracing(service_name="shop")
app = FastAPI(title="shop", lifespan=lifespan)
app.add_middleware(RvhTraceMiddleware)


async def discount(sku: str, cents: int) -> int:
    """Awaited by Rust: the percentage to take off."""
    async with span("look up discount", {"shop.sku": sku}) as looking:
        await asyncio.sleep(0.002)
        percent = 10 if cents >= 1_000 else 5
        looking.set_attribute("shop.discount.percent", percent)
    return percent


@app.get("/quotes/{sku}")
async def show_quote(sku: str, currency: str = "EUR") -> dict[str, int | str]:
    async with span("price item"):
        cents = await pricing.quote(sku, currency, RATES_URL, discount)
    return {"sku": sku, "currency": currency, "cents": cents}
