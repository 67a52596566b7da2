-- One row per embedding model; its faces lie in the table of that name, partitioned by domain.
CREATE TABLE face_service.models (
    table_name text PRIMARY KEY,
    model text NOT NULL UNIQUE,
    space text NOT NULL,
    dimension integer NOT NULL CHECK (dimension > 0),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row per domain and model; its faces lie in the partition of that name.
CREATE TABLE face_service.domains (
    table_name text NOT NULL REFERENCES face_service.models,
    domain text NOT NULL,
    partition_name text NOT NULL UNIQUE,
    indexed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, domain)
);
