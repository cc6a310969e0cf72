"""The shipped graphs and blueprints by name."""

from .artist_graphs import choose, taste
from .blueprints import denoise, restore_photo, restore_photo_by_search, upscale_photo
from .flux_graphs import any_model, kontext, ummf_flux
from .lucidflux_graphs import lucidflux, lucidflux_large, lucidflux_part
from .public_graphs import controlnet_once, controlnet_search, deblur, klein, kontext_lora, one_step
from .search_graphs import evolutionary, particles, search, stepwise
from .small_graphs import evaluate, few_steps, fidelity, folder, large, pairs, restore, ummf

GRAPHS = {
    "01 Restore a photo (works now)": restore,
    "02 Restore a photo and keep it faithful": fidelity,
    "03 Restore a photo in four steps": few_steps,
    "04 Search for the best result": search,
    "05 Large photo in tiles": large,
    "06 Measure a restoration": evaluate,
    "07 Restore a photo with UMMF": ummf,
    "08 Search of your own - step by step": stepwise,
    "09 Search of your own - evolution": evolutionary,
    "10 Search of your own - particles": particles,
    "11 Make pairs to train on": pairs,
    "12 FLUX Kontext - restore by instruction": kontext,
    "13 FLUX dev - photo, caption and search": ummf_flux,
    "14 FLUX dev - better images by search": any_model,
    "15 FLUX dev - LucidFlux restores a photo": lucidflux,
    "16 FLUX dev - LucidFlux, large photo and search": lucidflux_large,
    "17 FLUX dev - LucidFlux, a part such as a face": lucidflux_part,
    "18 FLUX dev - enlarge with a ControlNet": controlnet_once,
    "19 FLUX dev - enlarge with a ControlNet and search": controlnet_search,
    "20 FLUX dev - deblur and search": deblur,
    "21 FLUX dev - enlarge in one step": one_step,
    "22 FLUX Kontext - restore an old photo": kontext_lora,
    "23 FLUX klein - edit a large photo": klein,
    "24 Restore a folder of photos": folder,
    "25 Choose yourself": choose,
    "26 Judge by my taste": taste,
}
"""By the name that the template browser shows, in its order. Those with FLUX in it need downloads."""


BLUEPRINTS = {
    "Restore Photo": restore_photo,
    "Restore Photo (best of search)": restore_photo_by_search,
    "Upscale": upscale_photo,
    "Denoise (few steps)": denoise,
}
"""By the name that node search finds: it ranks names before aliases, and among names those that are used most everywhere."""
