"""The only package that does I/O: carries out the commands of flows, in either colour."""

from techforge._drivers.aio import AsyncDriver
from techforge._drivers.sync import SyncDriver

__all__ = ["AsyncDriver", "SyncDriver"]
