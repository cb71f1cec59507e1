"""A program of its own: from an AVIF or HEIC picture on its standard input to a PNG on its standard output.

These are made like videos, whose decoders get a whole file at once: it can keep them busy for hours, or take all
memory. A program can be ended. Its arguments: seconds, bytes and pixels that it may take, and where its libraries are.
"""

import io
import sys


def main(seconds: int, memory: int, area: int, *folders: str) -> None:
    sys.path[:] = folders
    from PIL import AvifImagePlugin, Image, ImageOps

    try:
        import resource
    except ImportError:  # on Windows; there who started this ends it
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        import pi_heif
    except ImportError:  # then AVIF can still be read
        pass
    else:
        pi_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    picture = Image.open(io.BytesIO(sys.stdin.buffer.read()), formats=("AVIF", "HEIF"))
    sys.stdout.buffer.write(f"{picture.width} {picture.height}\n".encode())
    if picture.width * picture.height <= area:
        profile = picture.info.get("icc_profile")
        upright = ImageOps.exif_transpose(picture)
        upright.save(sys.stdout.buffer, "PNG", compress_level=1, icc_profile=profile, exif=b"")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:])
