"""The kill switch in the cluster: one ConfigMap that anybody with kubectl can write; unless it says "off", it is on."""

from collections.abc import Callable, Mapping

from fleet.errors import SourceFailed

NAMESPACE, NAME, KEY = "gpu-steward", "gpu-steward-brake", "brake"

# the ConfigMap's data, None where there is no such object; raises `SourceFailed` where it can't be read
ReadSwitch = Callable[[], Mapping[str, str] | None]


def why_braked(read: ReadSwitch) -> str | None:
    """Return why moves are stopped, None where they are not; a switch that can't be read counts as on."""
    try:
        data = read()
    except SourceFailed as error:
        return f"the kill switch {NAMESPACE}/{NAME} can't be read: {error}"
    if data is None:
        return None
    value = data.get(KEY, "").strip()
    if value.lower() == "off":
        return None
    reason = data.get("reason", "").strip() or "no reason given"
    return f"the kill switch {NAMESPACE}/{NAME} is {value or 'set'}: {reason}"
