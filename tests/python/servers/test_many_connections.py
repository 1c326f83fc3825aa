"""Connections at the same time, with requests that overlap and requests that fail."""

import asyncio

from .client import Run, all_at_once, one_after_the_other
from .request import mixture, new_request
from .server import Server

CONNECTIONS = 8


def test_requests_at_the_same_time_stay_apart(server: Server, run: Run) -> None:
    meeting = [new_request("/meet", parameters=f"&parties={CONNECTIONS}") for _ in range(CONNECTIONS)]
    connections = [[request, *mixture(rounds=1), new_request("/fail")] for request in meeting]

    async def drive() -> None:
        async with asyncio.TaskGroup() as group:
            for number, requests in enumerate(connections):
                send = all_at_once if number % 2 else one_after_the_other
                group.create_task(send(server.port, requests))

    run(drive())
    server.assert_traces([request for requests in connections for request in requests])
