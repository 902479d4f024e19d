"""For your own tests: scripted responses instead of a network, and a clock that skips sleeps.

For pytest fixtures and a mock server on a socket, see `pytest_techforge`.

>>> from techforge.testing import Reply, Script
>>> script = Script(create=[Reply(429, headers={"retry-after": "30"})])
>>> job = script.client().jobs.create(image_url="https://a.example/i", audio_url="https://a.example/a")
>>> script.clock.now
30.0
"""

from techforge.testing.clock import Clock
from techforge.testing.script import Reply, Script, Sent

__all__ = ["Clock", "Reply", "Script", "Sent"]
