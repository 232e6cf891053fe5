"""The process: start, reload, drain, stop. The command line calls `run`; `CannotStart` says why it did not come up."""

from newapi_proxy.daemon.life import CannotStart, run

__all__ = ["CannotStart", "run"]
