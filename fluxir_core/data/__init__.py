from .shards import ShardWriter, write_whole
from .source import PictureSource, Record

__all__ = ["PictureSource", "Record", "ShardWriter", "write_whole"]
