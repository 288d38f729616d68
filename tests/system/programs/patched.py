"""Patches the standard library for gevent or eventlet, by the program's first argument.

It is imported before anything else, as both of them ask for.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

Timeout: Any
spawn: Callable[..., Any]
kill: Callable[..., None]
pause: Callable[[float], None]

if sys.argv[1] == "gevent":
    import gevent
    import gevent.monkey

    gevent.monkey.patch_all()
    Timeout, spawn, kill, pause = gevent.Timeout, gevent.spawn, gevent.kill, gevent.sleep
else:
    with warnings.catch_warnings(action="ignore"):  # it says that it is deprecated
        import eventlet

    eventlet.monkey_patch()
    Timeout, spawn, kill, pause = eventlet.Timeout, eventlet.spawn, eventlet.kill, eventlet.sleep
