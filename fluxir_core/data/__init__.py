from .lock import locked
from .shards import ShardWriter, write_whole
from .source import PictureSource, Record

__all__ = ["PictureSource", "Record", "ShardWriter", "locked", "write_whole"]
