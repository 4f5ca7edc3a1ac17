"""Numbers of things, as a reason or a risk tells them."""


def in_gpus(count: float) -> str:
    """Return a number of GPUs in words, to two digits: "1 GPU", "0.14 GPUs", "16.4 GPUs"."""
    return counted(round(count, 2), "GPU")


def counted(count: float, thing: str) -> str:
    """Return how many things there are in words: "1 pod", "3 pods"."""
    return f"{count:,g} {thing}{'' if count == 1 else 's'}"
