"""Takes a Markdown fence off an answer that is to be JSON; see `_fence`, where other providers find it too."""

from __future__ import annotations

from newapi_proxy.adapters._fence import Fence

__all__ = ["Fence"]
