"""What ComfyUI can pass to a node of the pack: each kind of value drawn at random, whole and odd; links are other nodes' outputs."""

import torch
from comfyui_fluxir.fluxir_core.searches.presets import PRESETS
from comfyui_fluxir.fluxir_core.searches.search import estimate_cost

SIDES = (1, 2, 7, 8, 9, 16, 17, 24, 31, 40, 64, 65, 97)
LATENT_SIDES = (1, 2, 3, 7, 8, 8, 8, 9, 12, 16)
FILLED = (
    "flat",
    "black",
    "white",
    "beyond its range",
    "huge",
    "NaN",
    "infinite",
)
DEPTH = 2
"""How many nodes of the pack may stand behind each other in a drawn graph."""
MOST_CALLS = 40
"""Model calls of a search that is run; the widgets allow millions."""
TEXTS = (
    "",
    " ",
    "a sharp photo",
    "niqe",
    "psnr, ssim",
    "lpips,,",
    "ü" * 300,
    "../up",
    "/",
    "a/b/",
    "con",
    "\0",
    "{",
    "[" * 400,
    "%d",
)


def tensor(draw, *shape):
    """Random values in [0, 1)."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(draw.getrandbits(40)))


def shape(draw):
    """(B, height, width) that most images of one case have: nodes that compare images could do little else."""
    if not hasattr(draw, "shape"):
        draw.shape = draw.choice((1, 1, 2, 3)), draw.choice((40, 64, 64, 65, 97)), draw.choice((40, 64, 64, 65, 97))
    return draw.shape


def image(draw):
    batch, height, width = draw.choice((1, 1, 1, 2, 3)), draw.choice(SIDES), draw.choice(SIDES)
    if draw.maybe(0.8):
        batch, height, width = shape(draw)
    made = tensor(draw, batch, height, width, draw.choice((3, 3, 3, 3, 1, 4)))
    if draw.maybe(0.15):
        made = filled(draw, made)
    if draw.maybe(0.1):
        made = draw.choice(
            (
                lambda: made[:0],
                lambda: made[:, :0],
                lambda: made[0],
                lambda: made[None],
                lambda: made.movedim(-1, 1),
                lambda: made[..., :1].expand(-1, -1, -1, 5),
                lambda: (255 * made).to(torch.uint8),
                lambda: made.half(),
                lambda: made.double(),
                lambda: made.bfloat16(),
                lambda: made[:, ::2, ::2],
                lambda: made[:1].expand(3, -1, -1, -1),
            )
        )()
    return made


def filled(draw, made):
    kind = draw.choice(FILLED)
    if kind in ("NaN", "infinite"):
        made = made.clone()
        made.view(-1)[draw.randrange(made.numel())] = torch.nan if kind == "NaN" else draw.choice((torch.inf, -torch.inf))
        return made
    return {
        "flat": lambda: torch.full_like(made, 0.5),
        "black": lambda: torch.zeros_like(made),
        "white": lambda: torch.ones_like(made),
        "beyond its range": lambda: 4 * made - 2,
        "huge": lambda: 1e30 * made,
    }[kind]()


def latent(draw):
    batch, height, width = draw.choice((1, 1, 2, 3)), draw.choice(LATENT_SIDES), draw.choice(LATENT_SIDES)
    if draw.maybe(0.8):
        batch, height, width = shape(draw)[0], *(2 * -(-side // 16) for side in shape(draw)[1:])
    made = {"samples": 4 * tensor(draw, batch, 16, height, width) - 2}
    if draw.maybe(0.2):
        made["samples"] *= 0
    if draw.maybe(0.2):
        made["noise_mask"] = mask(draw)
    if draw.maybe(0.1):
        made["batch_index"] = [draw.randrange(5) for _ in range(batch)]
    if draw.maybe(0.1):
        made["downscale_ratio_spacial"] = draw.choice((8, 16))
    if draw.maybe(0.12):
        made["samples"] = draw.choice(
            (
                lambda x: x[:0],
                lambda x: x[..., :0],
                lambda x: x[0],
                lambda x: x[:, :, None],
                lambda x: x[:, :, None].repeat(1, 1, 3, 1, 1),
                lambda x: x[:, :4],
                lambda x: x.repeat(1, 2, 1, 1),
                lambda x: x[:, 0],
                lambda x: x.half(),
                lambda x: filled(draw, x),
            )
        )(made["samples"])
    return made


def mask(draw):
    made = tensor(draw, draw.choice((1, 1, 2)), draw.choice((8, 64, 65)), draw.choice((8, 64, 65)))
    return draw.choice((lambda: made, lambda: made.round(), lambda: made[0], lambda: 0 * made, lambda: made[:, None]))()


def conditioning(draw):
    """Prompts as core's nodes make them: whole, for regions, for a part of the steps, with reference images, combined."""
    made = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        values = {"pooled_output": 2 * tensor(draw, 1, 32) - 1, "guidance": draw.choice((0.0, 1.0, 4.0, 100.0))}
        if draw.maybe(0.15):
            shares = draw.choice(((0.5, 1.0, 0.5, 0.0), (1.0, 0.5, 0.0, 0.25), (1.0, 1.0, 0.0, 0.0)))
            values["area"] = ("percentage", *shares)  # core fails on one outside the latent
            values["strength"] = draw.choice((0.0, 0.5, 1.0, 10.0))
        if draw.maybe(0.15):
            values |= {
                "mask": tensor(draw, 1, *draw.choice(((8, 8), (64, 64), (65, 8)))),
                "mask_strength": draw.choice((0.5, 1.0)),
                "set_area_to_bounds": draw.maybe(),
            }
        if draw.maybe(0.15):
            values |= dict(zip(("start_percent", "end_percent"), sorted((draw.random(), draw.random()))))
        if draw.maybe(0.15):
            values["reference_latents"] = [
                4 * tensor(draw, 1, 16, draw.choice((4, 8)), draw.choice((8, 10))) - 2 for _ in range(draw.choice((1, 2)))
            ]
            values["reference_latents_method"] = draw.choice(("offset", "index", "uxo"))
        made.append([2 * tensor(draw, 1, draw.choice((1, 8, 17)), 64) - 1, values])
    return made


def sigmas(draw):
    if draw.maybe(0.15):
        odd = ([], [1.0], [0.0], [0.0, 0.0], [0.2, 0.8, 0.0], [1.0, 0.5], [14.6, 2.0, 0.0], [1.0, torch.nan, 0.0], [0.5, 0.5, 0.0])
        return torch.tensor(draw.choice(odd))
    return torch.linspace(draw.choice((1.0, 1.0, 0.9, 0.5, 1e-4)), 0, draw.choice((2, 3, 5)))


def noise(draw):
    from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise

    return Noise_RandomNoise(draw.choice((0, 1, 2**64 - 1, draw.getrandbits(64)))) if draw.maybe(0.9) else Noise_EmptyNoise()


def widget(draw, options):
    """A number in the range that a widget states, often one of its ends."""
    least, most, step = options["min"], options["max"], options.get("step", 1)
    if draw.maybe(0.25):
        return draw.choice((least, most))
    if draw.maybe(0.4):
        return options["default"]
    if isinstance(step, float) or isinstance(least, float):
        return round(draw.uniform(least, most) / step) * step
    return min(most, least + step * draw.randrange(draw.choice((4, 4, 4, (most - least) // step + 1))))


class Drawer:
    """Draws the inputs of nodes. `kinds` {id: node}; `model` and `vae` are the bare tiny ones, `files` the names of those that fit them."""

    def __init__(self, kinds, model, vae, lucidflux, files):
        self.kinds, self.model, self.vae, self.lucidflux, self.files = kinds, model, vae, lucidflux, files
        self.given = {}
        for node in kinds.values():
            for place, output in enumerate(node.define_schema().outputs):
                self.given.setdefault(output.io_type, []).append((node, place))
        self.made = {
            "IMAGE": image,
            "LATENT": latent,
            "MASK": mask,
            "CONDITIONING": conditioning,
            "SIGMAS": sigmas,
            "NOISE": noise,
            "STRING": lambda draw: draw.choice(TEXTS),
            "BOOLEAN": lambda draw: draw.maybe(),
            "MODEL": lambda draw: model,
            "VAE": lambda draw: vae,
            "CLIP_VISION_OUTPUT": lambda draw: {"last_hidden_state": tensor(draw, 1, 10, draw.choice((12, 12, 12, 7)))},
            "FLUXIR_LUCIDFLUX": lambda draw: lucidflux,
        }

    def inputs(self, draw, node, depth=DEPTH):
        """{name: value} of every input of `node`, without some of the optional ones."""
        schema = node.define_schema()
        found = {}
        for each in schema.inputs:
            options = each.as_dict()
            if options.get("optional") and draw.maybe():
                continue
            found[each.id] = self.value(draw, each, options, depth)
        if costs_too_much(found):
            found["search"] = PRESETS["quick"]
        return {name: [value] for name, value in found.items()} if schema.is_input_list else found

    def value(self, draw, each, options, depth):
        kind = each.io_type
        if kind == "COMBO":
            own = [option for option in options["options"] if option in self.files]
            return draw.choice(own if own and draw.maybe(0.8) else options["options"])
        if kind in ("INT", "FLOAT"):
            return widget(draw, options)
        if kind == "STRING" and options.get("forceInput") and draw.maybe(0.7):
            return self.output(draw, kind, depth) or "{}"
        if kind == "COMFY_AUTOGROW_V3":
            return {f"verifier{n}": self.link(draw, "FLUXIR_VERIFIER", depth) for n in range(draw.choice((1, 2, 3)))}
        if kind == "COMFY_MULTITYPED_V3":
            kind = draw.choice([own.io_type for own in each.io_types if own.io_type in self.made])
        return self.link(draw, kind, depth)

    def link(self, draw, kind, depth):
        """A value of `kind`: drawn, or what another node of the pack gives for drawn inputs."""
        found = None
        if kind not in self.made or draw.maybe(0.3):
            found = self.guider(draw, depth) if kind == "GUIDER" else self.output(draw, kind, depth)
        if found is None:
            found = self.made[kind](draw) if kind in self.made else PLAINEST[kind](self.kinds, self.files)
        return found

    def output(self, draw, kind, depth):
        """What a node of the pack gives as `kind`, or None: at the end of a chain, or where too much was refused."""
        from comfy_execution.graph_utils import ExecutionBlocker

        for _ in range(10 if depth and kind in self.given else 0):
            node, place = draw.choice(self.given[kind])
            try:
                made = call(node, self.inputs(draw, node, depth - 1))[place]
                if node.define_schema().outputs[place].is_output_list:
                    if not made:  # as the latents of Score Images where none were given
                        continue
                    made = draw.choice(made)
                if not isinstance(made, ExecutionBlocker):  # nothing behind it runs
                    return made
            except ValueError:  # what it says is looked at in its own turn
                continue
        return None

    def guider(self, draw, depth):
        from comfy.samplers import CFGGuider

        guider = CFGGuider(self.link(draw, "MODEL", max(depth - 1, 0)))
        guider.set_conds(self.link(draw, "CONDITIONING", max(depth - 1, 0)), conditioning(draw))
        guider.set_cfg(draw.choice((1.0, 1.0, 3.5, 0.0, 100.0)))
        return guider


def costs_too_much(inputs):
    """Whether a search among `inputs` of a node would take minutes."""
    search = inputs.get("search") or PRESETS.get(inputs.get("preset"))
    return search is not None and estimate_cost(search, torch.linspace(1, 0, 5))["nfe"] > MOST_CALLS


def _adapter(kinds, files):
    node = kinds["FluxIRLoadAdapter"]
    (name,) = (option for option in node.define_schema().inputs[0].options if option in files)
    return call(node, {"adapter_name": name})[0]


PLAINEST = {
    "FLUXIR_ADAPTER": _adapter,
    "FLUXIR_VERIFIER": lambda kinds, files: call(kinds["FluxIRNaturalImageVerifier"], {})[0],
    "FLUXIR_SEARCH": lambda kinds, files: None,
    "FLUXIR_TILE_PLACES": lambda kinds, files: call(
        kinds["FluxIRSplitIntoTiles"], {"image": torch.zeros(1, 64, 64, 3), "tile": 64, "overlap": 0.25}
    )[1],
}


def call(node, inputs):
    """The outputs of `node`, as ComfyUI calls it."""
    with torch.inference_mode():
        return node.execute(**inputs).result
