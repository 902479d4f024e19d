"""One lock for all that the threads of a process share."""

import os
import sys
from threading import Lock

lock = Lock()
"""A fork waits for it, so that no child finds it held by a thread that it does not have."""

if sys.platform != "win32":
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
