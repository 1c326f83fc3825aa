"""The route that Starlette or FastAPI dispatched a request to. Imported with the first request that has one.

Read after dispatch from what the framework left in the scope, never by matching the path a second time: what was
dispatched is what is reported, and a framework's next release cannot make it raise into the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast


def route_template(scope: Mapping[str, Any]) -> str | None:
    """The full template, `/shops/{shop}/items/{item}`: application root, mounts and the route itself.

    Args:
        scope: The scope after dispatch.

    Returns:
        The template, or None when no route was matched or a part of the prefix has no template.
    """
    path = _path_in_its_application(scope)
    if path is None:
        return None
    mounted_at: str = scope.get("root_path") or ""
    # A mount lengthens `root_path` and keeps what it was at first beside it.
    application_root: str = scope.get("app_root_path", mounted_at) or ""
    if mounted_at != application_root:
        mounts = _mount_templates(scope, mounted_at.removeprefix(application_root))
        if mounts is None:
            return None
        path = mounts + path
    return application_root.rstrip("/") + path


def _path_in_its_application(scope: Mapping[str, Any]) -> str | None:
    route = scope.get("route")
    if route is None:
        # FastAPI leaves no route for a plain Starlette route, only its endpoint.
        return _path_of_endpoint(scope)
    if _is_mount(route):
        # What is mounted has routes of its own and matched none of them, or has none and the mount is the route.
        return None if _routes(route) else ""
    # A FastAPI router that was included with a prefix keeps its routes as they are; the prefixed path is beside it.
    fastapi: Mapping[str, Any] = scope.get("fastapi") or {}
    effective: object = fastapi.get("effective_route_context")
    if effective is not None and getattr(effective, "original_route", None) is route:
        return getattr(effective, "path_format", None) or _template(route)
    return _template(route)


def _template(route: object) -> str | None:
    template = getattr(route, "path_format", None) or getattr(route, "path", None)
    return template if isinstance(template, str) else None


def _is_mount(route: object) -> bool:
    """Whether it is a mount: it has an application instead of an endpoint, and its pattern ends in `/{path:path}`."""
    return hasattr(route, "app") and not hasattr(route, "endpoint") and hasattr(route, "path_regex")


def _path_of_endpoint(scope: Mapping[str, Any]) -> str | None:
    endpoint = scope.get("endpoint")
    found = [route for route in _routes(scope.get("router")) if getattr(route, "endpoint", None) is endpoint]
    return _template(found[0]) if endpoint is not None and len(found) == 1 else None


def _mount_templates(scope: Mapping[str, Any], mounted_at: str) -> str | None:
    """The templates of the mounts that make up `mounted_at`, `/shops/{shop}` for `/shops/acme`."""
    templates, routes = "", _routes(scope.get("router"))
    while mounted_at:
        for route in routes:
            # A mount's own pattern ends in `/{path:path}`, so the rest of the path is a group of the match.
            template, pattern = _template(route), getattr(route, "path_regex", None)
            if template is None or pattern is None or not _is_mount(route):
                continue
            match = pattern.match(mounted_at + "/")
            if match is None:
                continue
            templates += template.removesuffix("/{path}")
            rest = match.group("path").rstrip("/")
            mounted_at = f"/{rest}" if rest else ""
            routes = _routes(route)
            break
        else:
            return None
    return templates


def _routes(owner: object) -> Iterable[object]:
    routes: object = getattr(owner, "routes", None)
    return cast("Iterable[object]", routes) if isinstance(routes, list | tuple) else ()
