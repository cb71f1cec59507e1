"""The processes that share a job: those that `accelerate launch` or `torchrun` started."""

from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(days=30)  # for those that take longer than the others


def processes() -> PartialState:
    """This process among those started by `accelerate launch` or, without a GPU, `torchrun`.

    Each should wait for all others before it returns an exit status other than 0, which would end them.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
