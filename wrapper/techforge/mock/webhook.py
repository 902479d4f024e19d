"""Webhooks: the mock sends a POST when a job ends. Body and signature are the mock's own, not the API's."""

import asyncio
import hashlib
import hmac
import json
import logging

import httpx
from attrs import asdict, field, frozen

from techforge.mock.store import JobView, Store

SIGNATURE_HEADER = "x-mock-signature"

_logger = logging.getLogger(__name__)

_CHECK_SECONDS = 0.05
_TIMEOUT_SECONDS = 10.0


@frozen
class Webhook:
    """Where to send the end of each job."""

    url: str
    secret: str | None = field(default=None, repr=False)

    async def run(self, store: Store) -> None:
        """Send an event for each job that ends, until cancelled."""
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as client,
            asyncio.TaskGroup() as deliveries,
        ):
            while True:
                for view in store.take_ended():
                    deliveries.create_task(self._deliver(client, view))
                await asyncio.sleep(_CHECK_SECONDS)

    def headers(self, body: bytes) -> dict[str, str]:
        """Return the headers of an event: with a secret, they have the HMAC-SHA256 of its body."""
        headers = {"content-type": "application/json"}
        if self.secret is not None:
            digest = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"sha256={digest}"
        return headers

    async def _deliver(self, client: httpx.AsyncClient, view: JobView) -> None:
        body = json.dumps(asdict(view)).encode()
        try:
            response = await client.post(self.url, content=body, headers=self.headers(body))
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
        else:
            if response.is_success:
                return
            problem = f"the receiver responded with {response.status_code}"
        _logger.warning("the webhook for job %s failed and is not repeated: %s", view.job_id, problem)
