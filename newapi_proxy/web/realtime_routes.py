"""The realtime route: a WebSocket handshake on the relay's own listener. Key, address, model; then the session has it.

Knows headers and paths; must not know what is said. Sources: relay-and-billing 1.6, 2.2, 5.12; tasks-and-accounts 10.1.
"""

from __future__ import annotations

from aiohttp import hdrs
from multidict import CIMultiDict

from newapi_proxy import metrics
from newapi_proxy.errors import OurError, ProxyError
from newapi_proxy.relay import exchange, realtime
from newapi_proxy.relay.sockets import Socket
from newapi_proxy.snapshot import Snapshot, Token
from newapi_proxy.surfaces.base import QUERY
from newapi_proxy.surfaces.realtime import OFFERED, REALTIME, SPOKEN, key, offers
from newapi_proxy.web import keys
from newapi_proxy.web.app import Action, Call, Edge
from newapi_proxy.web.router import Route
from newapi_proxy.web.sockets import ServedSocket, checked


def routes() -> list[Route[Action]]:
    """The one route."""
    return [Route("/v1/realtime", {"GET": _session})]


async def _session(edge: Edge, call: Call) -> None:
    house, arrival, visit = edge.house, call.arrival, call.visit
    snapshot = house.snapshot  # one for the whole session
    metrics.inflight(1)
    try:
        token = _caller(edge, call, snapshot)
        visit = call.by(token, snapshot)
        keys.admit(token, visit.client_ip, house.clock.wall())
        shake = checked(arrival)
        if edge.draining:
            raise _restarting()
        headers = {name.lower(): value for name, value in arrival.headers.items()} | _offered(call)
        protocol = SPOKEN if SPOKEN in offers(headers) else None

        def accept() -> Socket:
            if arrival.connection.retiring:
                raise _restarting()
            return ServedSocket(arrival, shake, protocol, snapshot.config.relay.keepalive)

        ask = REALTIME.read(b"", headers | {QUERY: call.query})
        await realtime.serve(house, visit, ask, arrival.reply, accept)
    except ProxyError as error:
        exchange.reject(house, visit, REALTIME, arrival.reply, error)
    except ConnectionError:
        edge.gone(visit)
    except Exception as error:
        edge.failed(call, error, REALTIME.failure)
    finally:
        metrics.inflight(-1)


def _caller(edge: Edge, call: Call, snapshot: Snapshot) -> Token:
    """Whose key it is: the one among the subprotocols, where there is one, else as everywhere. Raises ClientError."""
    named = key(_offered(call))
    if named is None:
        return edge.caller(call, snapshot)
    return edge.caller(call, snapshot, CIMultiDict({hdrs.AUTHORIZATION: f"Bearer {named}"}))


def _offered(call: Call) -> dict[str, str]:
    """The subprotocols, of one line or several."""
    found = call.arrival.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())
    return {OFFERED: ",".join(found)} if found else {}


def _restarting() -> OurError:
    return OurError("The server is being restarted.", status=503, code="shutting_down", retry_after=1.0)
