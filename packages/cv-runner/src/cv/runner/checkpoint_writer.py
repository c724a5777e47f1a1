"""When checkpoints are written: at once, or by a thread while training goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import ClassVar

Job = Callable[[], None]


class ForegroundWriter:
    """Writes at once."""

    #: Whether tensors must be copied before a job that uses them is handed over.
    needs_copy: ClassVar[bool] = False

    def save(self, job: Job) -> None:
        """Do a save."""
        job()

    def then(self, job: Job) -> None:
        """Do something after the latest save, if it succeeded."""
        job()

    def finish(self) -> None:
        """Return when everything is on disk."""

    def close(self) -> None:
        """Finish, and take no more jobs."""


class BackgroundWriter(ForegroundWriter):
    """Writes in a thread. What a save raises comes out of the next call.

    A save waits for the one before it, so that copies of the weights do not pile up.
    """

    needs_copy: ClassVar[bool] = True

    def __init__(self) -> None:
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="checkpoint writer", daemon=True)
        self._thread.start()

    def save(self, job: Job) -> None:
        """Queue a save; raises what the former one raised, after queueing this one."""
        self._jobs.join()
        error, self._error = self._error, None
        self._jobs.put(job)
        if error is not None:
            raise error

    def then(self, job: Job) -> None:
        """Queue something for after the latest save, if that succeeds."""
        self._jobs.put(lambda: None if self._error is not None else job())

    def finish(self) -> None:
        """Wait until everything is on disk; raises what the latest save raised."""
        self._jobs.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Finish, and end the thread."""
        self._jobs.put(None)
        self._thread.join()
        self.finish()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:
                self._error = error
            finally:
                self._jobs.task_done()
        self._jobs.task_done()
