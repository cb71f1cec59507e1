"""The page as on ZeroGPU, with `spaces` beside this file: prints its address and serves until its input ends."""

import os
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parents[2]))

import app  # noqa: I001  before torch, as `python app.py` has it
from explorer import runs


def main() -> None:
    here = os.getpid()

    def only_elsewhere(*_):
        if os.getpid() == here:
            raise RuntimeError("there is no GPU outside of an event that asked for one")

    runs.FINE = 8  # the example's full result takes a quarter of the time
    pipe = runs.pipeline("miniature")
    for network in (pipe.unet, pipe.vae.encoder, pipe.vae.decoder, pipe.text_encoder):
        network.register_forward_pre_hook(only_elsewhere)
    _, address, _ = app.create_demo().launch(prevent_thread_lock=True, ssr_mode=False, quiet=True)
    print(address, flush=True)
    while os.read(0, 1):  # not sys.stdin, whose lock a fork would wait for
        pass


if __name__ == "__main__":
    main()
