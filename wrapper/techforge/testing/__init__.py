"""For your own tests: a clock that jumps. The fixtures of the pytest plugin use it, too."""

from techforge.testing.clock import Clock

__all__ = ["Clock"]
