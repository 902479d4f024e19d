"""A mock of the API that follows the contract, keeps jobs, renders real videos and injects faults."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from techforge.auth import TEST_API_KEY

if TYPE_CHECKING:
    from techforge.mock.faults import Fault
    from techforge.mock.server import MockServer

__all__ = ["TEST_API_KEY", "Fault", "MockServer"]

_NEEDED = ("starlette", "uvicorn", "jsonschema_rs", "av", "PIL")


def __getattr__(name: str) -> object:
    """Load the public names on first use: render workers do not need the server."""
    if name not in {"Fault", "MockServer"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise ImportError(
            f'techforge.mock needs {", ".join(missing)}: install it with  pip install "techforge[mock]"'
        )
    if name == "MockServer":
        from techforge.mock.server import MockServer  # noqa: PLC0415

        return MockServer
    from techforge.mock.faults import Fault  # noqa: PLC0415

    return Fault
