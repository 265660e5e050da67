-- The intent file: attempts to place bytes, durable before the last byte is released. It belongs to
-- one incarnation of one catalogue. A row here is open only while its copy id has no location,
-- cleanup or dead-letter row in the catalogue.

CREATE TABLE intent_file (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    uuid            BLOB    NOT NULL,
    incarnation     BLOB    NOT NULL
) STRICT;

CREATE TABLE write_intents (
    copy_id         BLOB    PRIMARY KEY,
    blob_id         BLOB    NOT NULL,
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    reserved        INTEGER NOT NULL CHECK (reserved >= 0)
) STRICT, WITHOUT ROWID;
