"""Errors of any library in words that can end a sentence."""

from accelerate.utils.memory import should_reduce_batch_size


def in_a_line(error: Exception) -> str:
    """What went wrong, on one line without a full stop; with the error's type unless a value or a file was wrong."""
    if is_out_of_memory(error):
        return "there is not enough memory: a smaller image_area or fewer num_segments need less"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    first, *more = [line.strip() for line in str(error).strip().splitlines()] or [""]
    text = (f"{first} {more[0]}" if more and first.endswith(":") else first).rstrip(".")
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was too little memory, on the device or in the machine."""
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)
