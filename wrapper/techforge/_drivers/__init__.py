"""The only package that does I/O: it executes the commands of flows, sync and async.

`sync` imports little, since every program pays for its imports: the first request loads httpx. `aio` imports
everything, since an import during a request would block the event loop.
"""

CLOSED = "this client is closed; build a new one"
