"""Nodes that give each tile a prompt of its own."""

from typing import NamedTuple

from comfy_api.latest import io

from ..fluxir_core.execution.tiles import OVERLAP, TileGrid
from .inputs import checked_image
from .tile_context import PLACE

SPLIT_NODE, PROMPT_NODE = "Split into Tiles", "Prompt per Tile"
LATENT = 8
"""Pixels a side of the grid that tiles lie on: of most models one latent pixel."""
Places = io.Custom("FLUXIR_TILE_PLACES")


class Place(NamedTuple):
    """A tile's rectangle as shares of the whole image, 0 to 1."""

    top: float
    left: float
    bottom: float
    right: float


class SplitIntoTiles(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRSplitIntoTiles",
            display_name=SPLIT_NODE,
            category="FluxIR/conditioning",
            description="Cuts an image into the tiles that Tile Model will see, so that each can be described.",
            search_aliases=["tile prompt", "crop tiles", "caption tiles", "image grid", "fluxir"],
            inputs=[
                io.Image.Input("image", tooltip="The image that is restored, at the sampled size. One image, not a batch."),
                io.Int.Input(
                    "tile", default=1024, min=64, max=8192, step=64, tooltip="Side of a tile in pixels; the same as in Tile Model."
                ),
                io.Float.Input(
                    "overlap",
                    default=OVERLAP,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    advanced=True,
                    tooltip="The same as in Tile Model.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="tiles",
                    is_output_list=True,
                    tooltip="The tiles, row by row, as a list: nodes behind it run once for each, such as Caption Image.",
                ),
                Places.Output(display_name="places", tooltip="Where the tiles are, for Prompt per Tile."),
            ],
        )

    @classmethod
    def execute(cls, image, tile, overlap) -> io.NodeOutput:
        checked_image(SPLIT_NODE, "image", image, finite=False)
        if len(image) != 1:
            raise ValueError(f"{SPLIT_NODE}: {len(image)} images; give one, because every tile gets one prompt.")
        height, width = image.shape[1:3]
        grid = TileGrid(max(1, height // LATENT), max(1, width // LATENT), tile // LATENT, overlap)
        rows = [each.times(LATENT) for each in grid.tiles]
        tiles = [image[:, row.top : row.top + row.height, row.left : row.left + row.width] for row in rows]
        whole = (grid.height * LATENT, grid.width * LATENT)
        places = [
            Place(row.top / whole[0], row.left / whole[1], (row.top + row.height) / whole[0], (row.left + row.width) / whole[1])
            for row in rows
        ]
        return io.NodeOutput(tiles, places)


class PromptPerTile(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FluxIRPromptPerTile",
            display_name=PROMPT_NODE,
            category="FluxIR/conditioning",
            description="One conditioning in which each tile has a prompt of its own. For a model with Tile Model.",
            search_aliases=["tile prompt", "regional prompt", "conditioning list", "tiled upscale prompt", "fluxir"],
            is_input_list=True,
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="The prompts of all tiles, as a list: from CLIP Text Encode behind Split into Tiles."
                ),
                Places.Input("places", tooltip="From Split into Tiles."),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="For any guider or sampler whose model went through Tile Model."
                )
            ],
        )

    @classmethod
    def execute(cls, conditioning, places) -> io.NodeOutput:
        places = places[0]
        if len(conditioning) != len(places):
            raise ValueError(
                f"{PROMPT_NODE}: {len(conditioning)} prompts for {len(places)} tiles; encode one text for each tile of Split into Tiles."
            )
        return io.NodeOutput([[text, {**values, PLACE: place}] for own, place in zip(conditioning, places) for text, values in own])
