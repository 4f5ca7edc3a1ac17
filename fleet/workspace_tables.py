"""What workspaces are to be."""

from fleet.columns import FLAG, TEXT, TIME, needed
from fleet.frames import Table

WORKSPACE_MANIFEST = Table(
    "workspace_manifest",
    "Workspaces as their owners wish them: every manifest applied, append-only; the newest of each is in force.",
    (
        needed("workspace", TEXT, "its name"),
        needed("made_at", TIME, "when it was applied"),
        needed("manifest", TEXT, "the whole manifest as JSON"),
        needed("is_deleted", FLAG, "the workspace is to go"),
        needed("is_forced", FLAG, "even where something runs in it"),
        needed("actor", TEXT, "who applied it"),
    ),
    key=("workspace", "made_at"),
    on_conflict="keep",
)
