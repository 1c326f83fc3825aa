"""Starlette's tree of mounts: which of them a request went through, and what their templates are together.

After dispatch the scope has the outermost router and what the mounts matched, `/shops/acme`, in `root_path`; not the
mounts themselves. So they are looked up among the router's routes. A lookup walks the routes of every level that it
passes; one whose result has no parameters is remembered.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

_DEEPEST = 32
_MOST_REMEMBERED = 4096

_remembered: dict[tuple[int, int, str], tuple[weakref.ref[Any], weakref.ref[Any]]] = {}


class Level(NamedTuple):
    """The routes among which a router chose after the mounts had matched."""

    prefix: str
    mount: object
    routes: list[object] | tuple[object, ...]


def is_mount(route: object) -> bool:
    """Whether it is a mount: it has an application instead of an endpoint, and its pattern ends in `/{path:path}`."""
    pattern = getattr(route, "path_regex", None)
    return pattern is not None and "path" in pattern.groupindex and _passes_on(route)


def mounts_a_router(mount: object) -> bool:
    """Whether what is mounted has routes of its own, be it inside middleware."""
    return _routes(getattr(mount, "app", None)) is not None


def template(route: object) -> str | None:
    """The template of a route, as its framework spells it."""
    found = getattr(route, "path_format", None) or getattr(route, "path", None)
    return found if isinstance(found, str) else None


def mount_templates(scope: Mapping[str, Any], mounted_at: str, dispatched: object) -> str | None:
    """The templates of the mounts that make up `mounted_at`, `/shops/{shop}` for `/shops/acme`.

    None when one of them has no template or is not to be found, or when there is more than one answer. `dispatched` is
    the route or the endpoint below them.
    """
    router = scope.get("router")
    key = (id(router), id(dispatched), mounted_at)
    known = _remembered.get(key)
    # An identity alone may be that of an object that took the place of another.
    if known is not None and known[0]() is router and known[1]() is dispatched:
        return mounted_at
    levels = list(_levels(scope, mounted_at))
    prefixes = {level.prefix for level in levels}
    if len(prefixes) > 1:
        # Only `Host` routes lead to more than one; what was dispatched to tells them apart.
        prefixes = {level.prefix for level in levels if _leads_to(level, dispatched)}
    if len(prefixes) != 1:
        return None
    (prefix,) = prefixes
    if prefix == mounted_at:
        _remember(key, router, dispatched)
    return prefix


def path_of_endpoint(scope: Mapping[str, Any], mounted_at: str, endpoint: object) -> str | None:
    """The template below the mounts of the route or mount that was dispatched to, by its endpoint alone."""
    for level in _levels(scope, mounted_at):
        found = [route for route in level.routes if getattr(route, "endpoint", None) is endpoint]
        if len(found) > 1:
            found = [route for route in found if _matches(route, scope)]
        if found:
            return template(found[0])
        if level.mount is not None and getattr(level.mount, "app", None) is endpoint:
            return path_of_mount(level.mount)
    return None


def path_of_mount(mount: object) -> str | None:
    """What a request that ended at a mount adds to its prefix.

    What is mounted has routes of its own and matched none of them, or it has none and the mount is the route.
    """
    return None if mounts_a_router(mount) else "/{path}"


def path_below_root(scope: Mapping[str, Any]) -> str:
    """The path that routers match: empty where the scope has none that is text."""
    path, root = scope.get("path"), scope.get("root_path")
    if not isinstance(path, str):
        return ""
    return path.removeprefix(root) if isinstance(root, str) else path


def _levels(scope: Mapping[str, Any], mounted_at: str) -> Iterator[Level]:
    routes = _routes(scope.get("router"))
    if routes is not None:
        fastapi: object = scope.get("fastapi")
        with_included = isinstance(fastapi, dict) and "included_router" in fastapi
        yield from _levels_below(Level("", None, routes), mounted_at, with_included, _DEEPEST)


def _levels_below(level: Level, mounted_at: str, with_included: bool, deepest: int) -> Iterator[Level]:
    """The levels at which nothing of `mounted_at` is left."""
    if not mounted_at:
        yield level
    if not deepest:
        return
    for route in _passing_on(level.routes, with_included):
        if is_mount(route):
            match = cast("Any", route).path_regex.match(mounted_at + "/")
            prefix = template(route)
            if match is None or prefix is None:
                continue
            rest = match.group("path").rstrip("/")
            below = Level(level.prefix + prefix.removesuffix("/{path}"), route, _routes(cast("Any", route).app) or ())
            yield from _levels_below(below, f"/{rest}" if rest else "", with_included, deepest - 1)
            # Mounts are tried in their order, and one that matches is dispatched to.
            return
        if hasattr(route, "host_regex"):
            below = Level(level.prefix, route, _routes(cast("Any", route).app) or ())
            yield from _levels_below(below, mounted_at, with_included, deepest - 1)


def _passing_on(routes: list[object] | tuple[object, ...], with_included: bool) -> Iterator[object]:
    """The mounts and hosts of a level in their order, those of routers that FastAPI included among them."""
    for route in routes:
        if _passes_on(route):
            yield route
        elif with_included and hasattr(route, "effective_route_contexts"):
            for context in cast("Any", route).effective_route_contexts():
                included = getattr(context, "starlette_route", None)
                if included is not None and _passes_on(included):
                    yield included


def _passes_on(route: object) -> bool:
    return not hasattr(route, "endpoint") and hasattr(route, "app")


def _leads_to(level: Level, dispatched: object) -> bool:
    if level.mount is dispatched or getattr(level.mount, "app", None) is dispatched:
        return True
    return any(route is dispatched or getattr(route, "endpoint", None) is dispatched for route in level.routes)


def _matches(route: object, scope: Mapping[str, Any]) -> bool:
    pattern = getattr(route, "path_regex", None)
    return pattern is not None and pattern.match(path_below_root(scope)) is not None


def _routes(application: object) -> list[object] | tuple[object, ...] | None:
    """The routes of a router or an application, or of the application that is inside of middleware."""
    for _ in range(_DEEPEST):
        routes: object = getattr(application, "routes", None)
        if isinstance(routes, list | tuple):
            return cast("list[object] | tuple[object, ...]", routes)
        application = getattr(application, "app", None)
        if application is None:
            break
    return None


def _remember(key: tuple[int, int, str], router: object, dispatched: object) -> None:
    if len(_remembered) >= _MOST_REMEMBERED:
        _remembered.clear()
    try:
        _remembered[key] = (weakref.ref(router), weakref.ref(dispatched))
    except TypeError:  # an endpoint of a class with slots
        return
