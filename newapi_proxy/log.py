"""The log: one JSON object a line on stdout, its event names, the request line, redaction last.

Interfaces §5. No prompt, no answer and no secret is ever in a line: callers pass names and numbers, `bug` prints where
an exception happened but never its text (which may quote a request), and known secret values are blanked just before
writing. Logging fails open: a line that cannot be written is counted and lost, it never breaks a request.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from time import gmtime, strftime
from typing import Any, Final, Literal

import msgspec
import orjson

from newapi_proxy.clock import SystemClock
from newapi_proxy.secret import MASK

# Where rich is installed, structlog loads all of it for tracebacks that nobody here prints: three megabytes.
_rich: Final = sys.modules.get("rich")
if _rich is None:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _rich is None:
        del sys.modules["rich"]

EVENTS: Final = frozenset(
    {
        "request",  # one finished request
        "bug",  # an exception outside the failure tree
        "library",  # a record of somebody else's logger
        "started",
        "listening",
        "draining",
        "drained",
        "stopped",
        "state",  # SIGUSR1
        "loop_stalled",
        "config_fault",
        "config_warning",
        "config_loaded",
        "config_kept",
        "reload_refused",
        "shadowed",  # YAML and the database name the same thing
        "channel_state",
        "attempt_failed",
        "usage_odd",
        "params_dropped",
        "settle_short",
        "task_submitted",
        "task_finished",
        "poll_failed",
        "tasks_adopted",  # New API's, open when its database came here
        "topup_paid",
        "topup_refused",  # a notice whose signature was right
        "login_bound",  # an account elsewhere signs in a user or a key from now on, or no more
        "settle_failed",
        "holds_recovered",
        "ledger_unavailable",
        "ledger_recovered",
        "shared_unavailable",  # each process holds the limits for itself meanwhile
        "shared_recovered",
        "rows_pruned",  # rows that were older than `retention`
    }
)
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]
End = Literal["ok", "client_gone", "upstream_error", "timeout", "rejected"]

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_SHORTEST_SECRET: Final = 6  # a shorter value would blank ordinary text; `check` warns of such keys
_MOST_FRAMES: Final = 20
_STDOUT: Final = 1


class Attempt(msgspec.Struct, frozen=True):
    """One upstream attempt: `key` is the key's place in the channel's list, `error` a code, `ms` its duration."""

    channel: str
    key: int
    status: int
    error: str | None
    ms: float


class Fault(msgspec.Struct, frozen=True):
    """What the client was told: the error's type and code."""

    type: str
    code: str | int | None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The request line (interfaces §5), built at one place so that its fields cannot vary by path."""

    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    ttft_ms: float | None = None
    client_ip: str
    token: str | None = None
    group: str | None = None
    model: str | None = None
    upstream_model: str | None = None
    channel: str | None = None
    stream: bool = False
    attempts: tuple[Attempt, ...] = ()
    usage: Mapping[str, int | str] = {}
    quota: int = 0
    usd: str = "0"
    price_version: str | None = None
    end: End
    error: Fault | None = None
    replay_of: str | msgspec.UnsetType = msgspec.UNSET  # not there unless an answer was told again


class Secrets:
    """The values that must never be written; they accumulate, so that an old key stays hidden after a reload."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._pattern: re.Pattern[bytes] | None = None

    def register(self, values: Iterable[str]) -> None:
        """Adds values. Those of several lines (a service account's JSON) hide each of their longer lines as well."""
        wanted: set[str] = set()
        for value in values:
            wanted.add(value)
            if len(value) > 200:
                wanted.update(piece for piece in re.split(r"\\n|[\n\"]", value) if len(piece) >= 24)
        wanted = {value for value in wanted if len(value) >= _SHORTEST_SECRET} - self._known
        if wanted:
            self._known |= wanted
            forms = {form for value in self._known for form in _written(value)}
            self._pattern = re.compile(b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))

    def redact(self, line: bytes) -> bytes:
        """The line with every known value blanked."""
        return line if self._pattern is None else self._pattern.sub(MASK.encode(), line)


def _written(value: str) -> tuple[bytes, bytes]:
    """The value as it stands in plain text and inside a JSON string."""
    return value.encode("utf-8", "replace"), orjson.dumps(value.encode("utf-8", "replace").decode())[1:-1]


class _Out:
    """Standard output as bytes; also the logger that structlog wraps."""

    def __init__(self) -> None:
        self.lost = 0
        self.console = False
        self.level = logging.INFO
        self.later: Callable[[Callable[[], None]], object] | None = None
        self._waiting: list[bytes] = []

    def soon(self, line: bytes) -> None:
        """One line, written with the others of this turn of the loop: a write for each costs a tenth of a request."""
        if self.later is None:
            self.write(line)
            return
        if not self._waiting:
            self.later(self.flush)
        self._waiting.append(line)

    def flush(self) -> None:
        """Writes what waits."""
        if self._waiting:
            lines, self._waiting = b"".join(self._waiting), []
            self.write(lines)

    def write(self, line: bytes) -> None:
        """One line, in one write. A reader that has gone or a full disk costs the line, nothing else."""
        try:
            done = os.write(_STDOUT, line)
            while done < len(line):
                line = line[done:]
                done = os.write(_STDOUT, line)
        except OSError:
            self.lost += 1

    def msg(self, line: bytes) -> None:
        """What structlog calls at every level."""
        self.flush()
        self.write(secrets.redact(line) + b"\n")

    debug = info = warning = error = critical = msg


secrets: Final = Secrets()
_out: Final = _Out()
_encoder: Final = msgspec.json.Encoder()
_second: list[Any] = [0, b""]  # the second last printed and its text: one strftime per second


def gather(later: Callable[[Callable[[], None]], object] | None) -> None:
    """From now on request lines are written together, when `later` (a loop's `call_soon`) calls; None: each at once."""
    _out.flush()
    _out.later = later


def lost() -> int:
    """Lines that could not be written so far."""
    return _out.lost


def _stamp() -> bytes:
    """Now in ISO 8601, UTC, with milliseconds."""
    now = SystemClock.wall()  # a line carries the moment it is written, whatever clock the request ran on
    whole = int(now)
    if whole != _second[0]:
        _second[0], _second[1] = whole, strftime("%Y-%m-%dT%H:%M:%S.", gmtime(whole)).encode()
    return b"%b%03dZ" % (_second[1], int((now - whole) * 1000))


def request(finished: Finished) -> None:
    """Writes the request line."""
    if _out.level > logging.INFO:
        return
    if _out.console:
        logger().info("request", **msgspec.to_builtins(finished))
        return
    line = b'{"ts":"%b","level":"info","event":"request",%b\n' % (_stamp(), _encoder.encode(finished)[1:])
    _out.soon(line if finished.error is None else secrets.redact(line))


def bug(error: BaseException, **fields: Any) -> None:
    """A line for an exception that nobody expected: its type and where it came from, never its text."""
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    logger().error(
        "bug",
        exception=type(error).__name__,
        cause=type(error.__cause__ or error.__context__).__name__ if error.__cause__ or error.__context__ else None,
        trace=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        **fields,
    )


def logger() -> structlog.typing.FilteringBoundLogger:
    """The logger for everything but the request line; `event` is one of EVENTS."""
    made: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return made


def setup(level: Level = "info", format: Format = "json") -> None:
    """Configures structlog and the libraries' stdlib loggers. May be called again by a reload."""
    _out.level = _LEVELS[level]
    _out.console = format == "console"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _console if _out.console else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_out.level),
        logger_factory=lambda *_: _out,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Library()]
    root.setLevel(max(_out.level, logging.WARNING))


def _json(_: Any, method: str, fields: MutableMapping[str, Any]) -> bytes:
    """The last processor: a line of JSON, whatever the fields are."""
    line = {"ts": _stamp().decode(), "level": method, "event": fields.pop("event"), **fields}
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate in some text
        clean = {key: str(value).encode("utf-8", "replace").decode() for key, value in line.items()}
        return orjson.dumps(clean)


def _console(_: Any, method: str, fields: MutableMapping[str, Any]) -> bytes:
    """The last processor for people: time, level, event, then what is not empty."""
    head = f"{strftime('%H:%M:%S')} {method:7} {fields.pop('event')}"
    rest = " ".join(f"{key}={value}" for key, value in fields.items() if value not in (None, "", (), [], {}, False))
    return f"{head}  {rest}".encode("utf-8", "replace")


class _Library(logging.Handler):
    """Records of libraries, on the same lines; an exception gives its type only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record; a broken one is not worth an exception."""
        level = record.levelname.lower() if record.levelname.lower() in _LEVELS else "error"
        fields: dict[str, Any] = {"source": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            frames = traceback.extract_tb(record.exc_info[2])[-_MOST_FRAMES:]
            fields["exception"] = type(record.exc_info[1]).__name__
            fields["trace"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        try:
            fields["message"] = record.getMessage()
        except (TypeError, ValueError):
            fields["message"] = str(record.msg)
        getattr(logger(), level)("library", **fields)
