"""Segments a folder with two processes that are killed again and again, and once undisturbed; says what came of it.

    python tests/killing.py MODEL PICTURES FOLDER ROUNDS [--preset NAME]

Prints a JSON line: seconds of both runs, the largest memory of a process, how many pictures were done after each round,
and which files differ in the end. The processes are forks of this one, which has loaded the model, so that they are at
work from their first moment.
"""

import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads of its parent's

import torch
from conftest import quick
from tqdm import tqdm

import emerdiff
from emerdiff.dataset.commands import segment_all
from emerdiff.dataset.folder import number_done
from emerdiff.dataset.formats import FORMATS
from emerdiff.dataset.pictures import find
from emerdiff.dataset.run import Share, Wanted


def main(model: str, pictures: str, place: str, rounds: str, *preset: str) -> None:
    torch.set_num_threads(1)
    pipe = emerdiff.load(model, device="cpu", dtype=torch.float32)
    settings = pipe.settings(preset=preset[1], num_segments=12) if preset else quick(smoothing=3)
    wanted = Wanted(settings, tuple(FORMATS), min_confidence=0.2)
    whole, shared = Path(place, "whole"), Path(place, "shared")

    def begun(out: Path, index: int, count: int) -> int:
        if child := os.fork():
            return child
        tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a killed one may hold it
        with open(os.devnull, "w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            os._exit(segment_all(pipe, wanted, find([pictures], out), out, Share(index, count)))

    def status(child: int) -> int:
        return os.waitpid(child, 0)[1]

    begin = time.perf_counter()
    assert status(begun(whole, 0, 1)) == 0
    seconds = time.perf_counter() - begin
    count, chance, done, killed, again = number_done(whole), random.Random(0), [], 0, time.perf_counter()

    def number() -> int:
        return number_done(shared) if (shared / ".emerdiff/done").exists() else 0

    for already in range(int(rounds)):
        children = [begun(shared, i, 2) for i in range(2)]
        goal = int(count * (already + chance.random()) / (int(rounds) + 1))
        while number() < goal:  # by what is done, as time depends on what else the machine does
            time.sleep(0.01)
        for child in children:
            time.sleep(chance.uniform(0, 0.5) * seconds / count)
            os.kill(child, signal.SIGKILL)
        killed += sum(status(child) == signal.SIGKILL for child in children)
        done.append(number())
    ends = [status(child) for child in [begun(shared, i, 2) for i in range(2)]]
    spent = {"seconds": round(seconds, 1), "shared_seconds": round(time.perf_counter() - again, 1)}
    spent["largest_mib"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    files = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (whole, shared)]
    differing = [str(name) for name in {**files[0], **files[1]} if files[0].get(name) != files[1].get(name)]
    told = {"done": done, "killed": killed, "ends": ends, "differing": differing, "files": len(files[0])}
    print(json.dumps(spent | told))


if __name__ == "__main__":
    main(*sys.argv[1:])
