"""The two edges that a daemon puts on its listeners: the relay's, and the private one for metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from newapi_proxy.relay.house import House
from newapi_proxy.snapshot import Snapshot
from newapi_proxy.surfaces import SURFACES
from newapi_proxy.web import account_routes, models_routes, ops_routes, realtime_routes, relay_routes
from newapi_proxy.web.app import Action, Edge, Failure, Part
from newapi_proxy.web.router import Route

_OPENAI: Final = "/v1/chat/completions"
_ANTHROPIC: Final = "/v1/messages"
_GEMINI: Final = "/v1beta/models/"
_MESSAGES: Final = "/v1/messages/"
_COMPATIBLE: Final = "/v1beta/openai/"
_GOOGLE: Final = ("/v1beta/models", "/v1beta/models/{id}", "/v1beta/", "/upload/v1beta/")  # and what is not there below


def relay_edge(house: House) -> Edge:
    """Every public route."""
    openai = _failure(_OPENAI)
    models = models_routes.routes(openai, _failure(_ANTHROPIC), _failure(_GEMINI))
    own: dict[str, Failure] = {_COMPATIBLE: openai}  # before the prefix that it stands below
    own |= {_MESSAGES: _failure(_ANTHROPIC)}
    own |= {pattern: surface.failure for pattern, surface in SURFACES.items()}
    own |= dict.fromkeys(_GOOGLE, _failure(_GEMINI))
    own |= dict.fromkeys((account_routes.BALANCE, account_routes.CALLS), account_routes.plain)
    accounts = account_routes.routes(openai)
    tasks = Part(_has_tasks, lambda: _task_routes(openai))
    routes = [*relay_routes.routes(), *realtime_routes.routes(), *models, *accounts, *ops_routes.routes()]
    parts = [tasks, Part(_sells, _topup_routes), Part(_sells_by_wechat, _wechat_routes), Part(_shows, _page_routes)]
    return Edge(house, routes, openai, own, parts)


def _has_tasks(snapshot: Snapshot) -> bool:
    return any(channel.adapter.tasks is not None for channel in (*snapshot.channels, *snapshot.parked))


def _task_routes(failure: Failure) -> Iterable[Route[Action]]:
    from newapi_proxy.web import task_routes  # nothing of it is loaded where no channel has tasks (decision 2)

    return task_routes.routes(failure)


def _sells(snapshot: Snapshot) -> bool:
    return snapshot.config.portal is not None and snapshot.config.portal.topup is not None


def _topup_routes() -> Iterable[Route[Action]]:
    from newapi_proxy.web import portal_topup, topup_routes  # not loaded where no credit is sold (decision 2)

    return [*topup_routes.routes(), *portal_topup.routes()]


def _sells_by_wechat(snapshot: Snapshot) -> bool:
    portal = snapshot.config.portal
    return portal is not None and portal.topup is not None and portal.topup.wechat is not None


def _wechat_routes() -> Iterable[Route[Action]]:
    from newapi_proxy.web import wechat_routes

    return wechat_routes.routes()


def _shows(snapshot: Snapshot) -> bool:
    return snapshot.config.portal is not None


def _page_routes() -> Iterable[Route[Action]]:
    from newapi_proxy.web import portal_routes  # nothing of it is loaded where there are no pages (decision 2)

    return portal_routes.routes()


def metrics_edge(house: House) -> Edge:
    """Health and metrics."""
    return Edge(house, ops_routes.metrics_routes(), _failure(_OPENAI))


def _failure(path: str) -> Failure:
    """The error bodies of the surface on this path, or of the first one below it; OpenAI's where there is none."""
    found = next((surface for pattern, surface in SURFACES.items() if pattern.startswith(path)), SURFACES[_OPENAI])
    return found.failure
