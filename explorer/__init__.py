"""The parts of the page: a visitor's session, the runs, the pictures of them, and links. `app.py` lays it out."""

try:
    import spaces  # Hugging Face's ZeroGPU; has to be imported before torch
except ImportError:
    spaces = None

from . import folders  # noqa: F401  sets gradio's folder, before gradio is imported

__all__ = ["spaces"]
