-- Workspaces as their owners wish them: every manifest ever applied, the newest of each workspace in force.
CREATE TABLE workspace_manifest (
    workspace VARCHAR NOT NULL,
    made_at TIMESTAMPTZ NOT NULL,
    manifest VARCHAR NOT NULL,
    is_deleted BOOLEAN NOT NULL,
    is_forced BOOLEAN NOT NULL,
    actor VARCHAR NOT NULL
);
