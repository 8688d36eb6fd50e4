"""One contestant in a process of its own, and its handle in the process that compares them."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from .problems import Arrays, Problem
from .rivals import CONTESTANTS, Unsupported


class ContestantError(RuntimeError):
    """A contestant failed at something it claims to support; carries its traceback."""


class Worker:
    """A contestant's process, restricted to as many CPUs as it may use threads."""

    def __init__(self, contestant: str, threads: int) -> None:
        module = importlib.import_module(CONTESTANTS[contestant])
        variant = contestant.partition("-")[2]
        self.contestant = contestant
        self.name: str = module.NAME[variant] if variant else module.NAME
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, CONTESTANTS[contestant]), daemon=True
        )
        # A child inherits both; most libraries look at them once, when they are imported.
        with _environment(module.environment(threads, variant)), _cpus(threads):
            self._process.start()
        theirs.close()

    def version(self) -> str | None:
        """Version of the framework, None if it is not installed."""
        return self._ask("version")

    def prepare(self, problem: Problem) -> tuple[Arrays, float] | str:
        """Sets a problem up; its results and the seconds of the first call, which compiles.

        If the contestant does not support it, why.
        """
        return self._ask("prepare", problem)

    def burst(self, seconds: float) -> list[float]:
        """Seconds of each of some consecutive calls of the prepared problem, at least one."""
        return self._ask("burst", seconds)

    def _ask(self, request: str, argument: Any = None) -> Any:
        self._connection.send((request, argument))
        try:
            done, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise ContestantError(
                f"{self.name}: process ended with code {self._process.exitcode}"
            ) from None
        if not done:
            raise ContestantError(f"{self.name}: {answer}")
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()  # ends the child's loop
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _cpus(count: int) -> Iterator[None]:
    """Restricts this thread, and what it starts, to `count` CPUs where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _serve(connection: Connection, module_name: str) -> None:
    """The child: answers requests until its parent closes the connection."""
    warnings.simplefilter("ignore")  # other projects' deprecations are not this table's subject
    contestant = _Contestant(importlib.import_module(module_name))
    while True:
        try:
            request, argument = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            answer = (True, getattr(contestant, request)(argument))
        except KeyboardInterrupt:
            return
        except Exception:
            answer = (False, traceback.format_exc())
        connection.send(answer)


class _Contestant:
    def __init__(self, module: Any) -> None:
        self._module = module
        self._call: Any = None

    def version(self, _: None) -> str | None:
        try:
            return self._module.version()
        except ImportError:
            return None

    def prepare(self, problem: Problem) -> tuple[Arrays, float] | str:
        self._call = None  # the previous problem's memory
        gc.collect()
        try:
            self._call, to_numpy = self._module.prepare(problem, problem.arrays())
        except Unsupported as reason:
            return str(reason)
        start = time.perf_counter()
        self._call()  # compiles, allocates
        first = time.perf_counter() - start
        return to_numpy(self._call()), first

    def burst(self, seconds: float) -> list[float]:
        call, clock = self._call, time.perf_counter
        times: list[float] = []
        gc.disable()
        try:
            if hasattr(call, "burst"):
                return call.burst(seconds)
            start = clock()
            call()  # back into the caches, threads awake; the only call if it takes the whole burst
            first = clock() - start
            if first >= seconds:
                return [first]
            end = clock() + seconds
            while not times or clock() < end:
                start = clock()
                call()
                times.append(clock() - start)
        finally:
            gc.enable()
        return times
