"""What to do about a source that does not give what it should: by its state, its kind and what it said last."""

_KINDS = (
    ("prometheus", "see that [collect.prometheus] url answers and that its exporters are scraped (docs/prometheus.md)"),
    ("kubernetes", "see that the kubeconfig context answers and what the collector may read (docs/kubernetes.md)"),
    ("nvml", "see that nvidia-smi answers on the node; a driver that hangs needs the node to be rebooted"),
    ("agent", "see that the agent's pod runs on the node and that nvidia-smi answers there"),
    ("kmsg", "see that the collector may read the kernel log"),
    ("remote_write", "see that the sender is up and has our address and token"),
    ("identity", "nothing turns the loop: see `steward serve`, or run `steward run`"),
)
_WORDS = (
    (("401", "403", "unauthorized", "forbidden"), "its credentials are refused: renew them, or grant what it reads"),
    (("certificate", "tls", "ssl"), "the connection is not trusted: set the CA, or the client certificate"),
    (("timed out", "timeout", "deadline"), "it answers too late: look at its load, or ask for less at a time"),
    (
        ("refused", "unreachable", "resolve", "no route"),
        "nothing answers at its address: is it up, is the address right?",
    ),
)


def hint(source: str, state: str, last_error: str | None) -> str | None:
    """Return what to do next about a source; None where there is nothing to do."""
    if state == "ok":
        return None
    said = "" if last_error is None or state not in {"failing", "never_read"} else last_error.lower()
    for words, advice in _WORDS:
        if any(word in said for word in words):
            return advice
    if state == "partial":
        return "samples are missing: see which nodes and GPUs on the page Data quality, and look at their exporters"
    known = next((advice for kind, advice in _KINDS if source.startswith(kind)), None)
    if known is not None:
        return known
    return "it was never read: run `steward collect`" if state == "never_read" else "see its last error, and its log"
