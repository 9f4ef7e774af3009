"""The HTTP interface of a running proxy: look at it, change its link, switch it off and on.

| request | |
|---|---|
| `GET /` | where it listens and connects to, whether it is enabled, seed, sharing, link |
| `PATCH /` with `{"enabled": false}` | refuse new connections and reset the open ones; `true` takes them again |
| `GET /link` | the link, as it is written in a file |
| `PUT /link` | replace it |
| `PATCH /link` | replace the keys that are given; null takes one away |
| `GET /connections` | the open connections, and their bytes |
| `GET /metrics` | for Prometheus |

A link that is changed holds for what is read from then on, on open connections too. What is wrong is told with status
400 as `{"faults": [{"key": "up.rate", "fault": "..."}]}`, and changes nothing; other errors are `{"error": "..."}`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from fedemu.errors import NetworkError, ScenarioError
from fedemu.net.proxy.proxy import DIRECTIONS, Connection, Proxy
from fedemu.proxying.link import LinkFile, merged, parse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Answers requests about one proxy.

    Args:
        proxy: The proxy.
        link: Its link, as it was written.
        apply: Puts another link in its place.
        facts: What else there is to tell, e.g. the seed.
        registry: Has the metrics.
    """

    def __init__(
        self,
        proxy: Proxy,
        link: LinkFile,
        apply: Callable[[LinkFile], None],
        facts: Mapping[str, Any],
        registry: CollectorRegistry,
    ) -> None:
        self._proxy, self._link, self._apply, self._facts, self._registry = proxy, link, apply, facts, registry

    def app(self) -> web.Application:
        """Return what answers."""
        app = web.Application(middlewares=[_tell_errors])
        app.add_routes(
            [
                web.get("/", self._show),
                web.patch("/", self._switch),
                web.get("/link", self._show_link),
                web.put("/link", self._replace_link),
                web.patch("/link", self._change_link),
                web.get("/connections", self._show_connections),
                *metrics_routes(self._registry),
            ]
        )
        return app

    def _state(self) -> web.Response:
        proxy = self._proxy
        facts = {"listen": str(proxy.at), "upstream": str(proxy.upstream.at), "enabled": proxy.is_enabled}
        return web.json_response({**facts, **self._facts, "link": self._link.tree})

    async def _show(self, _: web.Request) -> web.Response:
        return self._state()

    async def _switch(self, request: web.Request) -> web.Response:
        match await _mapping(request):
            case {"enabled": bool(enabled), **rest} if not rest:
                self._proxy.enable() if enabled else self._proxy.disable()
            case body:
                wrong = sorted(set(body) - {"enabled"})
                key = wrong[0] if wrong else "enabled"
                text = (
                    "only enabled can be changed here; PUT /link changes the link" if wrong else "write true or false"
                )
                return _faults([(key, text)])
        return self._state()

    async def _show_link(self, _: web.Request) -> web.Response:
        return web.json_response(self._link.tree)

    async def _replace_link(self, request: web.Request) -> web.Response:
        return self._take(await _mapping(request))

    async def _change_link(self, request: web.Request) -> web.Response:
        return self._take(merged(self._link.tree, await _mapping(request)))

    def _take(self, tree: Mapping[str, Any]) -> web.Response:
        link = parse(tree, self._link, "body")
        self._apply(link)
        self._link = link
        return web.json_response(link.tree)

    async def _show_connections(self, _: web.Request) -> web.Response:
        return web.json_response([_connection(c) for c in self._proxy.connections.values()])


def metrics_routes(registry: CollectorRegistry) -> list[web.RouteDef]:
    """Return the route that answers Prometheus."""

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/metrics", scrape)]


def _connection(connection: Connection) -> dict[str, Any]:
    lanes = connection.lanes
    return {
        "number": connection.number,
        "client": connection.client,
        "since": connection.since,
        **{d: {"bytes": lanes[d].carried, "queued": lanes[d].queued} for d in DIRECTIONS if d in lanes},
    }


async def _mapping(request: web.Request) -> dict[str, Any]:
    """Return the body of a request."""
    data = await request.read()
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _Refused(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _Refused('the body is not an object; write e.g. {"delay": "40ms"}')
    return body


class _Refused(Exception):
    """A request that says nothing."""


def _faults(faults: list[tuple[str, str]]) -> web.Response:
    return web.json_response({"faults": [{"key": key, "fault": text} for key, text in faults]}, status=400)


@web.middleware
async def _tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ScenarioError as error:
        return _faults([(fault.key, fault.text) for fault in error.faults])
    except _Refused as error:
        return web.json_response({"error": str(error)}, status=400)
    except NetworkError as error:
        return web.json_response({"error": str(error)}, status=409)
    except web.HTTPException as error:
        allowed = error.headers.get("Allow")
        text = f"{request.method} {request.path}: {error.reason}" + (f"; allowed: {allowed}" if allowed else "")
        return web.json_response({"error": text}, status=error.status)
