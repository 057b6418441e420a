"""Where the tasks of a plan are done: on this machine, or on those of a Ray cluster."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from foundation.errors import InputError, Unavailable
from models.plans.plan import Task
from models.plans.work import TaskFailed, do

Outcome = tuple[Task, dict[str, Any]]


def outcomes(tasks: Sequence[Task], cluster: str, at_once: int | None, threads: int) -> Iterator[Outcome]:
    """Do tasks, and give each one's result as soon as it has one; what failed has the state "failed".

    Args:
        tasks: to do.
        cluster: "local", or the address of a Ray cluster, all of whose machines see the plan's folders.
        at_once: most tasks at the same time on this machine; None: as many as cores allow.
        threads: of each task.

    Raises:
        InputError: Ray is not installed; ``Unavailable`` when the cluster cannot be reached, or is gone.
    """
    if cluster == "local":
        yield from _here(tasks, at_once or max(1, len(os.sched_getaffinity(0)) // threads), threads)
    else:
        yield from _on_ray(tasks, cluster, threads)


def _attempt(task: Task, threads: int) -> dict[str, Any]:
    try:
        return do(task, threads)
    except TaskFailed as error:
        return {"state": "failed", "error": str(error)}


def _here(tasks: Sequence[Task], at_once: int, threads: int) -> Iterator[Outcome]:
    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(_attempt, task, threads): task for task in tasks}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_ray(tasks: Sequence[Task], address: str, threads: int) -> Iterator[Outcome]:
    try:
        import ray
    except ImportError as error:
        raise InputError("--cluster: Ray is not installed; expected pip install 'inspectd[ray]'") from error
    try:
        # Its workers write what they say into files of their own.
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        # A killed worker, or machine, costs its tasks some time and nothing else.
        attempt = ray.remote(num_cpus=threads, max_retries=-1)(_attempt)
        running = {attempt.remote(task, threads): task for task in tasks}
        while running:
            [done], _ = ray.wait(list(running), num_returns=1)
            yield running.pop(done), ray.get(done)
    except (ConnectionError, ray.exceptions.RayError, TimeoutError, RuntimeError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise Unavailable(
            f"--cluster {address}: {said}; the same command goes on with what is not done"
        ) from error
    finally:
        ray.shutdown()
