"""The shop: a FastAPI service whose requests become traces.

Run it with `uvicorn shop:app --port 8000`. Where its traces go is for the environment to say, for example
`OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import rvh_trace
from rvh_trace import RvhTraceMiddleware, SpanContext, inject, install_task_factory, span, trace

STOCK_URL = os.environ.get("STOCK_URL", "http://127.0.0.1:8001")
PRICES = {"tea": 4.2, "mug": 9.5, "teapot": 24.0}
CARTS = {7: ["tea", "mug", "teapot"]}
COUPONS = {"SPRING": date(2020, 5, 31)}


class Item(BaseModel):
    sku: str
    price: float


class Cart(BaseModel):
    id: int
    total: float


class Order(BaseModel):
    cart_id: int


class Receipt(BaseModel):
    cart_id: int
    reserved: list[str]


class ExpiredCouponError(Exception):
    """The coupon was good once."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    install_task_factory()  # from here on, a task created inside a span becomes a child of that span
    async with httpx.AsyncClient(base_url=STOCK_URL) as app.state.stock:
        yield
    await rvh_trace.ashutdown()  # sends what is left


rvh_trace.init_tracing(service_name="shop")
app = FastAPI(title="shop", lifespan=lifespan)
app.add_middleware(RvhTraceMiddleware)  # one span a request, continuing the trace of the caller

quotes: dict[int, SpanContext] = {}  # cart id -> the span that priced the cart last


@app.get("/items/{sku}")
async def show_item(sku: str) -> Item:
    """A plain request: the middleware's span and nothing else."""
    if sku not in PRICES:
        raise HTTPException(404, f"no such item: {sku}")
    return Item(sku=sku, price=PRICES[sku])


@app.get("/carts/{cart_id}")
async def price_cart(cart_id: int) -> Cart:
    """Nested spans, and a task for each item."""
    async with span("price cart", {"shop.cart.id": cart_id}) as pricing:
        skus = await span("load cart").run(load_cart(cart_id))
        async with asyncio.TaskGroup() as tasks:
            prices = [tasks.create_task(look_up_price(sku)) for sku in skus]
        total = add_up([price.result() for price in prices])
        pricing.set_attributes({"shop.cart.size": len(skus), "shop.cart.total": total})
        quotes[cart_id] = pricing.context
    return Cart(id=cart_id, total=total)


@app.post("/orders", status_code=201)
async def place_order(order: Order) -> Receipt:
    """A call to another service; the order links to the trace in which its cart was priced."""
    quote = quotes.get(order.cart_id)
    async with span("place order", {"shop.cart.id": order.cart_id}, links=[quote] if quote else []):
        skus = await load_cart(order.cart_id)
        await reserve(skus)
    return Receipt(cart_id=order.cart_id, reserved=skus)


@app.get("/coupons/{code}")
async def show_coupon(code: str) -> date:
    """A request that fails: nobody handles the exception, so the server answers 500."""
    if code not in COUPONS:
        raise HTTPException(404, f"no such coupon: {code}")
    async with span("check coupon", {"shop.coupon.code": code}):
        last_day = COUPONS[code]
        if last_day < date.today():
            raise ExpiredCouponError(f"{code} was good until {last_day}")
    return last_day


async def load_cart(cart_id: int) -> list[str]:
    await asyncio.sleep(0.012)  # a database would be asked here
    if cart_id not in CARTS:
        raise HTTPException(404, f"no such cart: {cart_id}")
    return CARTS[cart_id]


async def look_up_price(sku: str) -> float:
    await asyncio.sleep(len(sku) / 200)
    return PRICES[sku]


@trace
def add_up(prices: list[float]) -> float:
    return sum(prices)


async def reserve(skus: list[str]) -> None:
    """Ask the stock service; the headers carry the trace over."""
    stock: httpx.AsyncClient = app.state.stock
    url = stock.base_url.join("/reservations")
    target = {"server.address": url.host, "server.port": url.port or 80, "url.full": str(url)}
    async with span("POST", {"http.request.method": "POST", **target}, kind="client") as call:
        headers: dict[str, str] = {}
        inject(headers)
        response = await stock.post(url, json={"skus": skus}, headers=headers)
        call.set_attribute("http.response.status_code", response.status_code)
        response.raise_for_status()
