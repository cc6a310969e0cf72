from .chart import search_chart
from .compare import side_by_side
from .files import load_picture, save_picture
from .montage import montage
from .quality import quality

__all__ = ["load_picture", "montage", "quality", "save_picture", "search_chart", "side_by_side"]
