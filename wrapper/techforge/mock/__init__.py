"""A mock of the API: a contract-true server with state, real renders and faults on demand."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from techforge.auth import TEST_API_KEY

if TYPE_CHECKING:
    from techforge.mock.faults import Fault
    from techforge.mock.server import MockServer

__all__ = ["TEST_API_KEY", "Fault", "MockServer"]

_missing = [
    name for name in ("starlette", "uvicorn", "jsonschema_rs", "av", "PIL") if find_spec(name) is None
]
if _missing:
    raise ImportError(
        f'techforge.mock needs {", ".join(_missing)}: install it with  pip install "techforge[mock]"'
    )


def __getattr__(name: str) -> object:
    """Load the public names on first use: a render worker needs nothing of the server."""
    if name == "MockServer":
        from techforge.mock.server import MockServer  # noqa: PLC0415

        return MockServer
    if name == "Fault":
        from techforge.mock.faults import Fault  # noqa: PLC0415

        return Fault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
