"""A program of its own that turns an AVIF or HEIC picture on standard input into a PNG on standard output.

Such pictures are stored like videos, and their decoders get a whole file at once: it can keep them busy for hours, or
take all memory. A process can be killed. Arguments: limits on seconds, bytes and pixels, and the path of its libraries.
"""

import io
import sys


def main(seconds: int, memory: int, area: int, *folders: str) -> None:
    sys.path[:] = folders
    from PIL import AvifImagePlugin, Image, ImageOps

    try:
        import resource
    except ImportError:  # on Windows; there, the parent process ends it
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
