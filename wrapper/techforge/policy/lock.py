"""One lock for all state that the threads of a process share."""

import os
import sys
from threading import RLock

lock = RLock()
"""Forks wait for this lock, so that no child inherits it locked by a thread that does not exist there.

It is reentrant because the garbage collector may clean up an abandoned call in a thread that holds the lock.
"""

if sys.platform != "win32":
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
