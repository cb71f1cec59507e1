"""What a camera makes of the painted picture."""

import numpy as np
from PIL import Image, ImageFilter

from .textures import film_grain


def develop(painted: Image.Image, rng: np.random.Generator) -> np.ndarray:  # (size, size, 3) uint8 RGB
    """The picture after exposure, white balance, tone curve, slight blur, vignette and sensor noise."""
    size = painted.width
    image = painted.point((_tone_curve(rng).clip(0, 1) * 255).T.ravel().astype(np.uint8).tolist())
    blur = max(0.0, rng.uniform(-0.4, 0.9)) * size / 512
    if blur > 0.1:
        image = image.filter(ImageFilter.BoxBlur(blur))
    corner = (np.linspace(-1, 1, size, dtype=np.float32) ** 2) * rng.uniform(0, 0.11)
    y, x = (np.arange(size) + int(start) for start in rng.uniform(0, 1024, 2))
    grain = film_grain().take(y, 0, mode="wrap").take(x, 1, mode="wrap")
    out = np.asarray(image) * (1 - corner[:, None] - corner)[:, :, None]
    out += grain * np.float32(rng.uniform(0.02, 0.1))
    return np.clip(out, 0, 255, out=out).astype(np.uint8)


def _tone_curve(rng: np.random.Generator) -> np.ndarray:  # (256, 3), of light in 0..1
    """Exposure with the white balance, then more or less contrast, on a black that is lifted a little."""
    gain = rng.uniform(0.85, 1.15) * (1 + rng.uniform(-0.07, 0.07, 3))
    gamma, contrast, lift = rng.uniform(0.85, 1.2), rng.uniform(0, 0.5), rng.uniform(0, 0.06)
    t = np.linspace(0, 1, 256)[:, None] ** gamma * gain
    t = t.clip(0, 1)
    return lift + (1 - lift) * (t + contrast * (t * t * (3 - 2 * t) - t))
