"""Stands in for Hugging Face's `spaces` as it is on ZeroGPU: an event runs in a process of its own, forked for it.

What goes in and what comes out is pickled, as there; only in such a process can the network be used.
"""

import multiprocessing
import pickle
from functools import wraps

_fork = multiprocessing.get_context("fork")


def GPU(duration):  # noqa: N802  the library's name
    def decorate(function):
        @wraps(function)
        def event(*args):
            seconds = duration(*args)
            assert isinstance(seconds, int) and 0 < seconds <= 300, seconds
            here, there = _fork.Pipe()
            process = _fork.Process(target=_work, args=(there, function, pickle.dumps(args)))
            process.start()
            there.close()
            try:
                while (answer := pickle.loads(here.recv_bytes())) is not None:
                    kind, value = answer
                    if kind == "raised":
                        raise value
                    yield value
            finally:
                process.terminate()
                process.join()

        return event

    return decorate


def _work(pipe, function, args) -> None:
    def send(answer) -> None:
        pipe.send_bytes(pickle.dumps(answer))

    try:
        for value in function(*pickle.loads(args)):
            send(("yielded", value))
        send(None)
    except Exception as error:
        send(("raised", error))
