"""What the tests of a module share: one daemon of the module's `CONFIG` with a scripted provider, and the SDKs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.daemon.running import Stage, staged


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The daemon and the provider behind its channels."""
    with staged(tmp_path_factory.mktemp("stage"), request.module.CONFIG) as running:
        yield running


@pytest.fixture
def chat(stage: Stage) -> Iterator[OpenAI]:
    """OpenAI's SDK."""
    with OpenAI(base_url=f"{stage.url}/v1", api_key="sk-demo", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def claude(stage: Stage) -> Iterator[Anthropic]:
    """Anthropic's SDK."""
    with Anthropic(base_url=stage.url, api_key="sk-demo", max_retries=0, timeout=20) as client:
        yield client
