"""Label Studio's own run lengths for brush masks: the values of an RGBA picture, as a stream of bits.

The stream is a header (how many values, bits of a value, and four sizes of run lengths) and runs: a bit 1, two bits
that choose the size, the length less one in that size, and the value.
"""

import numpy as np

VALUE = 8  # bits of a value
SIZES = (3, 6, 10, 16)  # bits of a run's length, of which each run takes the first that suffices
LONGEST = 2 ** SIZES[-1]


def encode(mask: np.ndarray) -> list[int]:
    """The bytes for a mask (H, W) bool: all four channels of its pixels are 255, all others 0."""
    values = np.repeat(mask.ravel(), 4)
    starts = np.flatnonzero(np.diff(values, prepend=~values[:1]))
    bits = [f"{len(values):032b}{VALUE - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, length in zip(starts.tolist(), np.diff(starts, append=len(values)).tolist(), strict=True):
        value = f"{255 * int(values[start]):0{VALUE}b}"
        for done in range(0, length, LONGEST):
            extra = min(LONGEST, length - done) - 1
            which = next(i for i, size in enumerate(SIZES) if extra < 2**size)
            bits.append(f"1{which:02b}{extra:0{SIZES[which]}b}{value}")
    return np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")).tolist()
