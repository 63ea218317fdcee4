"""How torch computes, wherever numbers are made that are told: in fp32 where it says fp32, the same way each time."""

import torch


def settle() -> None:
    """Products and convolutions of fp32 in IEEE fp32, never TF32; cuDNN by algorithms with the same bits each time.

    On the CPU of one machine a trial of so many threads then has the same bits each time. On a GPU some of torch's own
    kernels add up by atomics, such as the gradients of bilinear upsampling and max-pooling: last digits may differ.
    """
    torch.set_float32_matmul_precision("highest")
    cudnn = torch.backends.cudnn
    cudnn.allow_tf32 = False  # newer torch has finer names for it, which torch 2.6 has not and which may not be mixed
    cudnn.benchmark = False
    cudnn.deterministic = True
