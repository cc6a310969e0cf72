"""Stage 1 of the miniature: the autoencoder, on random crops of the training bank."""

import logging

import torch
from torch.nn import functional as F

from .autoencoder import NarrowTAESD, latent_statistics_loss

LATENT_NOISE = 0.05
"""Noise added to the latents in training, so that the decoder forgives the small errors of a sampled latent."""


def train_autoencoder(images, steps, checkpoint, device="cpu", learning_rate=1e-3, seed=0):
    """Trains a NarrowTAESD on `images` (N, 3, H, W) uint8. Returns it in eval mode, on `device`.

    L1 + 4 MSE on pixels, latents held near zero mean and unit variance. Convolutions by Muon (on their (out, in*9) matrices),
    biases by AdamW; from random weights Muon reached 19.4 dB on photos where AdamW had 16.6 after the same 300 steps. At a
    learning rate of 4e-3 many channels die and the colors with them: 22.1 dB on training pictures after 500 steps, here 26.8.
    `checkpoint` is a training.miniature.checkpoint.Checkpoint.
    """
    torch.manual_seed(seed)
    net = NarrowTAESD().to(device).train()
    # torch's Muon takes matrices only: these parameters are views of the kernels, and share their memory.
    kernels = [p for p in net.parameters() if p.ndim == 4]
    matrices = [torch.nn.Parameter(p.data.view(len(p), -1)) for p in kernels]
    biases = [p for p in net.parameters() if p.ndim < 4]
    muon = torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    optimizers = [muon, torch.optim.AdamW(biases, lr=learning_rate, weight_decay=0.0)]
    for step in checkpoint.steps(steps, net, *optimizers):
        size, batch = ((64, 16), (64, 16), (128, 4))[step % 3]
        index = torch.randint(len(images), (batch,))
        top, left = torch.randint(images.shape[-1] - size + 1, (2,)).tolist()
        pixels = images[index, :, top : top + size, left : left + size].to(device).float() / 255
        pixels = pixels.contiguous(memory_format=torch.channels_last)

        with torch.autocast(pixels.device.type, torch.bfloat16):
            latents = net.encode(pixels).float()
            decoded = net.decode(latents + LATENT_NOISE * torch.randn_like(latents)).float()
        loss = F.l1_loss(decoded, pixels) + 4 * F.mse_loss(decoded, pixels) + 0.02 * latent_statistics_loss(latents)

        net.zero_grad()
        loss.backward()
        for matrix, kernel in zip(matrices, kernels):
            matrix.grad = kernel.grad.reshape(matrix.shape)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1, step / 50) * min(1, 2 * (1 - step / steps))
            optimizer.step()
        if step % 100 == 0:
            logging.info("autoencoder step %d loss %.4f", step, loss.item())
    return net.eval()


@torch.no_grad()
def reconstruction_psnr(net, images):
    """PSNR in dB of each of `images` (N, 3, H, W) uint8 after encoding and decoding: the ceiling of any restoration."""
    pixels = images.float() / 255
    decoded = net.decode(net.encode(pixels)).clamp(0, 1)
    return -10 * torch.log10(((decoded - pixels) ** 2).mean((1, 2, 3)))
