"""The service that Rust asks for rates of exchange. Run it with `uvicorn rates:app --port 8001`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse

import rvh_trace
from rvh_trace import RvhTraceMiddleware

RATES = {"EUR": 1.0, "USD": 1.25}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    yield
    await rvh_trace.ashutdown()


rvh_trace.init_tracing(service_name="rates")
app = FastAPI(title="rates", lifespan=lifespan)
app.add_middleware(RvhTraceMiddleware)


@app.get("/rates/{currency}")
async def show_rate(currency: str) -> PlainTextResponse:
    if currency not in RATES:
        raise HTTPException(404, "no such currency")
    return PlainTextResponse(str(RATES[currency]))
