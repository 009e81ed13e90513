"""The lock for state that belongs to the whole process."""

import threading

__all__ = ["EXCLUSIVE"]

#: Held while a call uses the global random generators, the filters of warnings, or modes and
#: buffers of a model: calls of this library in several threads take turns. Reentrant.
EXCLUSIVE = threading.RLock()
