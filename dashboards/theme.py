"""How the pages look and behave: settings of Streamlit, which the server applies before the first page is drawn."""

from collections.abc import Mapping
from types import MappingProxyType

_SHAPE: dict[str, object] = {
    "theme.baseRadius": "6px",
    "theme.metricValueFontSize": "1.75rem",
    "theme.metricValueFontWeight": 600,
    "theme.headingFontSizes": ["1.75rem", "1.2rem", "1.05rem"],
    "theme.headingFontWeights": [650, 600, 600],
    "theme.paddingTop": "2.5rem",
    "theme.paddingBottom": "2rem",
    "theme.showWidgetBorder": True,
}
_LIGHT: dict[str, object] = {
    "theme.light.primaryColor": "#2f6f95",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f5f8",
    "theme.light.textColor": "#17202b",
    "theme.light.borderColor": "#d9dfe7",
}
_DARK: dict[str, object] = {
    "theme.dark.primaryColor": "#6fb1d6",
    "theme.dark.backgroundColor": "#12171e",
    "theme.dark.secondaryBackgroundColor": "#1b222c",
    "theme.dark.textColor": "#e6ebf1",
    "theme.dark.borderColor": "#313b48",
}
_BEHAVIOUR: dict[str, object] = {
    # Nothing about a fleet leaves its house.
    "browser.gatherUsageStats": False,
    "server.headless": True,
    # The pages of an installed package do not change under it.
    "server.fileWatcherType": "none",
    "server.enableStaticServing": False,
    "server.enableAgentApi": False,
    "client.toolbarMode": "minimal",
    # A visitor is told that something failed; what and where stands in the server's log.
    "client.showErrorDetails": "none",
    "logger.hideWelcomeMessage": True,
}

OPTIONS: Mapping[str, object] = MappingProxyType({**_BEHAVIOUR, **_SHAPE, **_LIGHT, **_DARK})
