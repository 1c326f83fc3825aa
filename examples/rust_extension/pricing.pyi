from collections.abc import Awaitable, Callable

def quote(
    sku: str, currency: str, rates_url: str, discount: Callable[[str, int], Awaitable[int]], /
) -> Awaitable[int]: ...
