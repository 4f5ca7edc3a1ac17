-- Who was asked about moves and what they answered: moves wait for people, and the record says for whom.
CREATE TABLE approval (
    content VARCHAR NOT NULL,
    move_id VARCHAR NOT NULL,
    plan_id VARCHAR NOT NULL,
    ts TIMESTAMPTZ NOT NULL,
    step VARCHAR NOT NULL,
    who VARCHAR NOT NULL,
    note VARCHAR,
    expires_at TIMESTAMPTZ,
    person_count INTEGER
);
