from .shards import NewShard, ShardWriter, write_whole
from .source import PictureSource, Record

__all__ = ["NewShard", "PictureSource", "Record", "ShardWriter", "write_whole"]
