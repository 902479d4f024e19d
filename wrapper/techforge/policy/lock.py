"""One lock for all that the threads of a process share."""

import os
import sys
from threading import RLock

lock = RLock()
"""A fork waits for it, so that no child finds it held by a thread that it does not have.

A call that was abandoned may be cleaned up while its thread holds the lock for another: hence reentrant.
"""

if sys.platform != "win32":
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
