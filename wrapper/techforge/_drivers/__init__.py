"""The only package that does I/O: it executes the commands of flows, sync and async.

`sync` is light, since each program pays for its imports; the network, and with it httpx, is loaded by the
first request. `aio` loads all of it, since a request that loads anything would hold the event loop up.
"""

CLOSED = "this client is closed; build a new one"
