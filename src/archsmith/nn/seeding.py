"""Seeds torch's generators, those of devices that are there alone."""

from __future__ import annotations


def seed_torch(seed: int) -> None:
    """Seed the CPU's generator, and CUDA's where there is CUDA.

    Not `torch.manual_seed`: for each kind of device that is not there it keeps the call with its stack for later, which
    takes a millisecond and more memory every time.
    """
    import torch  # here: what seeds torch as it is imported may need this module meanwhile

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
