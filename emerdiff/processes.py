"""The processes that share a job: those that `accelerate launch` or `torchrun` started."""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """This process among those started by `accelerate launch` or, without a GPU, `torchrun`."""
    return PartialState(cpu=not torch.cuda.is_available())
