from .compare import side_by_side
from .files import load_picture, save_picture
from .quality import quality

__all__ = ["load_picture", "quality", "save_picture", "side_by_side"]
