"""The coverage run: every architecture that transformers registers, small, through `dynstab.analyze`.

    python tests/coverage/run.py                       all of them; interrupt and run again to go on
    python tests/coverage/run.py --only gpt2 bert      some
    python tests/coverage/run.py --fresh               from the start

Each architecture runs in its own process, forked from one that has imported everything, with a time
limit. Rows go to a JSON-lines file as they come; the tables are written from it at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import transformers
from architectures import Architecture, architectures
from coverage_table import write_tables
from timm_families import families
from worker import Row, row

REPORTS = Path(__file__).parents[2] / "reports"
_Job = tuple[BaseProcess, Connection, Architecture, float]


def main() -> None:
    options = _options()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if options.fresh:
        options.rows.unlink(missing_ok=True)
    done = {known["family"] for known in _rows(options.rows)}
    waiting = [*architectures(), *families()]
    waiting = [a for a in waiting if not options.only or a.family in options.only]
    waiting = [a for a in waiting[:: options.every] if a.family not in done]
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    with options.rows.open("a") as file:
        for number, result in enumerate(_pool(waiting, options.workers, options.limit), 1):
            print(json.dumps(result), file=file, flush=True)
            print(f"{number}/{len(waiting)}  {result['family']:34s} {result['status']:14s} {result.get('seconds', '')}")
    if options.tables:
        write_tables(_rows(options.rows), REPORTS, limit=options.limit)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="model types of the registry")
    parser.add_argument("--every", type=int, default=1, help="only every n-th of them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one architecture")
    parser.add_argument("--rows", type=Path, default=Path("build/coverage/rows.jsonl"))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--no-tables", dest="tables", action="store_false")
    return parser.parse_args()


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _pool(waiting: list[Architecture], workers: int, limit: float) -> Iterator[Row]:
    """Rows as they come."""
    running: list[_Job] = []
    queue = list(waiting)
    while queue or running:
        while queue and len(running) < workers:
            running.append(_start(queue.pop(0)))
        multiprocessing.connection.wait([connection for _, connection, _, _ in running], timeout=0.5)
        for job in list(running):
            result = _finished(job, limit)
            if result is not None:
                running.remove(job)
                yield result


def _start(architecture: Architecture) -> _Job:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(architecture, theirs))
    process.start()
    theirs.close()
    return process, ours, architecture, time.monotonic()


def _work(architecture: Architecture, connection: Connection) -> None:
    with open(os.devnull, "w") as nowhere:  # models print and warn as they are built
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    connection.send(row(architecture))


def _finished(job: _Job, limit: float) -> Row | None:
    process, connection, architecture, started = job
    known: Row = {"family": architecture.family, "task": architecture.task}
    if connection.poll():
        try:
            result = connection.recv()
        except EOFError:
            process.join()
            result = {**known, "status": "died", "reason": f"the process ended with code {process.exitcode}"}
    elif time.monotonic() - started > limit:
        process.kill()
        result = {**known, "status": "too slow", "reason": f"not finished within {limit:g} s", "seconds": limit}
    else:
        return None
    process.join()
    connection.close()
    return result


if __name__ == "__main__":
    main()
