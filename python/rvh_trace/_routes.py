"""The route that a framework dispatched a request to. Imported with the first request that has one.

Read after dispatch from what the framework left in the scope, never by matching the path a second time: what was
dispatched is what is reported, and a framework's next release cannot make it raise into the request. No framework is
imported.

| key of the scope | left by | what it holds |
|---|---|---|
| `endpoint` | Starlette, FastAPI | what was dispatched to; the application, where that was a mount |
| `route` | Starlette; FastAPI for its own routes | the route, or a mount on the way to a route that left none |
| `router`, `root_path`, `app_root_path` | Starlette | the outermost router; what mounts matched, after what |
| `fastapi` | FastAPI | the route of an included router with its prefix; the path below a frontend |
| `path_template`, `route_handler` | Litestar | the template; of a mount only the handler |
| `rvh_trace.http.route` | `rvh_trace._quart`, and whoever wants to say | the template below `root_path` |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rvh_trace._mounts import is_mount, mount_templates, path_below_root, path_of_endpoint, path_of_mount, template

ROUTE_KEY = "rvh_trace.http.route"
"""The key of the scope for a framework that leaves nothing there itself: the template without `root_path`, a `str`."""


def route_template(scope: Mapping[str, Any]) -> str | None:
    """The full template, `/shops/{shop}/items/{item}`: application root, mounts and the route itself.

    Args:
        scope: The scope after dispatch.

    Returns:
        The template as the framework spells it, or None when no route was matched or a part of the prefix has no
        template. For a mounted application that says nothing of routes it is the mount's own, `/static/{path}`.

    Example:
        >>> route_template({"path_template": "/items/{item}", "root_path": "/api"})
        '/api/items/{item}'
    """
    mounted_at: object = scope.get("root_path") or ""
    # A mount lengthens `root_path` and keeps what it was at first beside it.
    application_root: object = scope.get("app_root_path", mounted_at) or ""
    if not isinstance(mounted_at, str) or not isinstance(application_root, str):
        return None
    mounted_at = "" if mounted_at == application_root else mounted_at.removeprefix(application_root)
    path, dispatched = _starlette_path(scope, mounted_at)
    said = scope.get(ROUTE_KEY)
    if isinstance(said, str):
        path = said
    if "path_template" in scope:
        if not getattr(scope.get("route_handler"), "is_mount", False):
            path = path if said is not None else scope["path_template"]
        elif path is None:
            path = _litestar_mount(scope)
        else:
            application_root = application_root.rstrip("/") + (_litestar_mount(scope) or "")
    if not isinstance(path, str):
        return None
    if mounted_at:
        mounts = mount_templates(scope, mounted_at, dispatched)
        if mounts is None:
            return None
        path = mounts + path
    return application_root.rstrip("/") + path or None


def _starlette_path(scope: Mapping[str, Any], mounted_at: str) -> tuple[str | None, object]:
    """The template below the mounts of what Starlette or FastAPI dispatched to last, and the route or endpoint."""
    endpoint, route = scope.get("endpoint"), scope.get("route")
    fastapi: object = scope.get("fastapi")
    if isinstance(fastapi, dict):
        fastapi = cast("dict[str, Any]", fastapi)
        if "frontend_path" in fastapi:
            return _frontend_path(scope, fastapi["frontend_path"]), endpoint
        # A FastAPI router that was included with a prefix keeps its routes as they are; the prefixed one is beside it.
        included = fastapi.get("effective_route_context")
        if included is not None:
            route = getattr(included, "starlette_route", None) or included
            if not _leads_to(route, endpoint):
                route = scope.get("route")
    if endpoint is None:
        return None, None
    if _leads_to(route, endpoint):
        return path_of_mount(route) if is_mount(route) else template(route), route
    # FastAPI leaves no route for a mount or a plain Starlette route.
    return path_of_endpoint(scope, mounted_at, endpoint), endpoint


def _leads_to(route: object, endpoint: object) -> bool:
    return getattr(route, "endpoint", None) is endpoint or (
        not hasattr(route, "endpoint") and getattr(route, "app", None) is endpoint
    )


def _frontend_path(scope: Mapping[str, Any], below: object) -> str | None:
    """The prefix of a FastAPI frontend, which has no parameters, and the path below it, which it keeps in the scope."""
    path = path_below_root(scope)
    if not isinstance(below, str) or not path.endswith(below):
        return None
    return path.removesuffix(below).rstrip("/") + "/{path}"


def _litestar_mount(scope: Mapping[str, Any]) -> str | None:
    """The path of the mount that Litestar dispatched to: literal, and `path_template` is that of the root then."""
    routes = getattr(scope.get("litestar_app"), "routes", ())
    handler, raw_path = scope.get("route_handler"), scope.get("raw_path", b"")
    paths = [template(route) or "" for route in routes if getattr(route, "route_handler", None) is handler]
    if len(paths) > 1 and isinstance(raw_path, bytes):
        full = raw_path.decode("latin-1").removeprefix(scope.get("root_path") or "")
        paths = [path for path in sorted(paths, key=len, reverse=True) if full.startswith(path)]
    return paths[0].rstrip("/") if paths else None
