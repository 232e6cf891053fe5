"""New API as a small daemon: one OpenAI-compatible address in front of many upstream accounts."""

__version__ = "0.1.0"
