"""Values that take long to make: each once, in the background, one at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any


class Later:
    """Values by name.

    Args: makers: what makes each.

    >>> later = Later({"answer": lambda: 42})
    >>> while (found := later.get("answer")) is None: time.sleep(0.01)
    >>> found
    42
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self.makers = dict(makers)
        self._asked: dict[str, Future[Any]] = {}
        self._since: dict[str, float] = {}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None

    def get(self, name: str) -> Any | None:
        """The value, None while it is computed; the first call starts it.

        Raises what the function of the value raised.
        """
        with self._lock:
            if name not in self._asked:
                self._asked[name], self._since[name] = Future(), time.monotonic()
                self._waiting.put(name)
                if self._worker is None:  # a daemon: Ctrl-C does not wait for it
                    self._worker = threading.Thread(
                        target=self._work, daemon=True, name="tellapart-later"
                    )
                    self._worker.start()
        asked = self._asked[name]
        return asked.result() if asked.done() else None

    def seconds(self, name: str) -> float:
        """Since it was asked for."""
        return time.monotonic() - self._since[name]

    def _work(self) -> None:
        while True:
            name = self._waiting.get()
            try:
                self._asked[name].set_result(self.makers[name]())
            except Exception as error:  # it is raised where the value is asked for
                self._asked[name].set_exception(error)
