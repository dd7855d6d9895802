"""The example for web applications, asked over HTTP without a server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from httpx import ASGITransport, AsyncClient

from examples.fastapi_app import SendWelcome, create_app
from jobmaster import ClusterBuilder
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A browser, as it were, while the application lives."""
    cluster = ClusterBuilder("shop").use_master(f"sqlite:///{tmp_path}/shop.db").add_handlers(SendWelcome).build()
    app = create_app(cluster)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://shop.test") as client,
    ):
        yield client


async def test_a_request_is_answered_with_the_id_and_worked_on_behind(client: AsyncClient) -> None:
    answer = await client.post("/welcome", json={"user_id": "user_123"})

    assert answer.status_code == 202
    job_id = answer.json()["id"]
    assert answer.headers["Location"] == f"http://shop.test/jobs/{job_id}"

    async def done() -> object:
        status = (await client.get(f"/jobs/{job_id}")).json()
        return status["state"] == "succeeded" and status

    assert await eventually(done) == {
        "id": job_id,
        "state": "succeeded",
        "result": "welcome, user_123",
        "error": None,
    }


@pytest.mark.parametrize("job_id", ["0190163d-8694-739b-aea5-966c26f8ad91", "nonsense"])
async def test_a_job_that_is_not_there_is_404(client: AsyncClient, job_id: str) -> None:
    answer = await client.get(f"/jobs/{job_id}")

    assert answer.status_code == 404
    assert job_id in answer.json()["detail"]


async def test_data_of_another_form_is_refused_before_anything_is_stored(client: AsyncClient) -> None:
    answer = await client.post("/welcome", json={"user": 1})

    assert answer.status_code == 422
