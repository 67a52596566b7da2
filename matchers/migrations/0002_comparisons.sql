-- One row per face that dual mode searched in both stores. Of people and pictures it holds numbers of compared_names.
CREATE TABLE face_service.comparisons (
    domain text NOT NULL,
    at timestamptz NOT NULL,
    request bigint NOT NULL,
    face smallint NOT NULL,
    model text NOT NULL,
    threshold double precision NOT NULL,
    pkl_ms real,
    pgvector_ms real,
    error text NOT NULL,
    top1_match boolean,
    top5_overlap real,
    distance_delta double precision,
    reason text,
    pkl bigint[] NOT NULL,
    pkl_distances double precision[] NOT NULL,
    pgvector bigint[] NOT NULL,
    pgvector_distances double precision[] NOT NULL,
    PRIMARY KEY (domain, at, request, face)
);
CREATE INDEX comparisons_remarkable ON face_service.comparisons (domain, at) WHERE reason IS NOT NULL OR error <> '';

-- Who and which picture: deleting a row here takes a name out of every comparison.
CREATE TABLE face_service.compared_names (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain text NOT NULL,
    person text NOT NULL,
    source text NOT NULL,
    person_id text NOT NULL,
    source_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX compared_names_source ON face_service.compared_names (domain, source_id);
-- Statistics would copy names into the system's own tables, where deleting a person does not reach.
ALTER TABLE face_service.compared_names
    ALTER COLUMN person SET STATISTICS 0,
    ALTER COLUMN source SET STATISTICS 0;
