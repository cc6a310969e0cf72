"""Stage 1 of the miniature: the autoencoder, on random crops of the training images."""

import logging

import torch
from torch.nn import functional as F

from .autoencoder import NARROW, WIDTHS, NarrowTAESD, latent_statistics_loss
from .stream import Window

LATENT_NOISE = 0.05
"""Noise added to the latents in training, so that the decoder forgives the small errors of a sampled latent."""

LEARNING_RATE = 1e-3
IMAGES, FRESH = 96, 2
"""How many images a step's crops are taken from, and how many of them are new."""


def train_autoencoder(images, narrow_steps, steps, narrow_checkpoint, checkpoint, device="cpu", seed=0):
    """Trains a NarrowTAESD, first narrow, then grown.

    Args:
        images: ImageStream.
        narrow_steps: at NARROW widths.
        steps: at WIDTHS, of which the second half slows down to a learning rate of 0.
        narrow_checkpoint, checkpoint: training.miniature.checkpoint.Checkpoint of the two parts.
        device: where it is trained.
        seed: of its weights and crops.

    Returns:
        The network in eval mode, on `device`.
    """
    torch.manual_seed(seed)
    window = Window(lambda i: images(i)[0], IMAGES, FRESH)
    narrow = NarrowTAESD(NARROW).to(device)
    _train(narrow, window, narrow_steps, narrow_checkpoint, lambda share: 1.0)
    wide = narrow.cpu().grown(WIDTHS).to(device)
    _train(wide, window, steps, checkpoint, lambda share: min(1.0, 2 * (1 - share)), first=narrow_steps)
    return wide.eval()


def _train(net, window, steps, checkpoint, schedule, first=0):
    """L1 + 4 MSE on pixels, latents held near zero mean and unit variance.

    Convolutions by Muon (on their (out, in*9) matrices), biases by AdamW; from random weights Muon reached 19.4 dB on photos
    where AdamW had 16.6 after the same 300 steps. At a learning rate of 4e-3 many channels die and the colors with them: 22.1
    dB on training images after 500 steps, at 1e-3 26.8. `schedule` gives the share of the learning rate by the share of
    `steps`; the window's steps begin at `first`.
    """
    device = next(net.parameters()).device
    net.train()
    # torch's Muon takes matrices only: these parameters are views of the kernels, and share their memory.
    kernels = [p for p in net.parameters() if p.ndim == 4]
    matrices = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in kernels]
    biases = [p for p in net.parameters() if p.ndim < 4]
    muon = torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    optimizers = [muon, torch.optim.AdamW(biases, lr=LEARNING_RATE, weight_decay=0.0)]
    for step in checkpoint.steps(steps, net, *optimizers):
        size, batch = ((64, 16), (64, 16), (128, 4))[step % 3]
        pool = window(first + step)
        crops = []
        for index in torch.randint(len(pool), (batch,)).tolist():
            top, left = torch.randint(pool[index].shape[-1] - size + 1, (2,)).tolist()
            crops.append(pool[index][:, top : top + size, left : left + size])
        pixels = (torch.stack(crops).to(device).float() / 255).contiguous(memory_format=torch.channels_last)

        with torch.autocast(pixels.device.type, torch.bfloat16):
            latents = net.encode(pixels).float()
            decoded = net.decode(latents + LATENT_NOISE * torch.randn_like(latents)).float()
        loss = F.l1_loss(decoded, pixels) + 4 * F.mse_loss(decoded, pixels) + 0.02 * latent_statistics_loss(latents)

        net.zero_grad()
        loss.backward()
        for matrix, kernel in zip(matrices, kernels):
            matrix.grad = None if kernel.grad is None else kernel.grad.reshape(matrix.shape)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(1, step / 50) * schedule(step / steps)
            optimizer.step()
        if step % 100 == 0:
            logging.info("autoencoder step %d loss %.4f mse %.5f", step, loss.item(), F.mse_loss(decoded, pixels).item())


@torch.no_grad()
def reconstruction_psnr(net, images):
    """PSNR in dB of each of `images` (N, 3, H, W) uint8 after encoding and decoding: the ceiling of any restoration."""
    pixels = images.float() / 255
    decoded = net.decode(net.encode(pixels)).clamp(0, 1)
    return -10 * torch.log10(((decoded - pixels) ** 2).mean((1, 2, 3)))
