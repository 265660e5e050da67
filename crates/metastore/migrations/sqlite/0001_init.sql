-- The catalogue. One transaction; forward only; never edited once released.
--
-- Identifiers (blob, copy, version, upload) are 16 bytes that sort by the time of drawing. Times are
-- milliseconds since 1970. Client keys are BLOBs: S3 order is the order of their bytes. Checksums
-- are 'ALGORITHM:base64'. CRC-64 sums are the 64 bits as a signed integer. Counters are never
-- clamped: a CHECK that fails is a bug and fails the job that would have hidden it.

CREATE TABLE catalogue (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    uuid            BLOB    NOT NULL,
    incarnation     BLOB    NOT NULL,
    seq             INTEGER NOT NULL DEFAULT 0 CHECK (seq >= 0), -- high-water mark of objects.seq
    recovery        TEXT,                                        -- why nothing may be deleted
    restored        INTEGER NOT NULL DEFAULT 0 CHECK (restored IN (0, 1)), -- in recovery state: known, not only suspected
    label_key       BLOB    NOT NULL CHECK (length(label_key) = 32),     -- knows labels on backends for our own
    retired         TEXT                                         -- why it must not be used any more
) STRICT;

CREATE TABLE instances (
    instance        INTEGER PRIMARY KEY,
    epoch           INTEGER NOT NULL CHECK (epoch >= 0),
    heartbeat       INTEGER NOT NULL,
    batch_seq       INTEGER NOT NULL DEFAULT 0,
    verdicts        BLOB
) STRICT;

-- === names ===

CREATE TABLE buckets (
    bucket_id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,
    state           TEXT    NOT NULL CHECK (state IN ('active', 'removed')),
    owner           TEXT    NOT NULL CHECK (owner IN ('config', 'catalogue')),
    created         INTEGER NOT NULL
) STRICT;

CREATE TABLE bucket_slots (
    bucket_id       INTEGER NOT NULL,
    instance        INTEGER NOT NULL,
    objects         INTEGER NOT NULL DEFAULT 0 CHECK (objects >= 0),
    bytes           INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    PRIMARY KEY (bucket_id, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE backends (
    backend_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,
    state           TEXT    NOT NULL CHECK (state IN ('active', 'draining', 'drained', 'removed')),
    mark            INTEGER NOT NULL DEFAULT 0 CHECK (mark >= 0), -- of the marker; 0: none yet
    capabilities    TEXT,
    progress        TEXT,
    epoch           INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE backend_slots (
    backend_id      INTEGER NOT NULL,
    instance        INTEGER NOT NULL,
    used            INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    orphan          INTEGER NOT NULL DEFAULT 0 CHECK (orphan >= 0),
    reserved_parts  INTEGER NOT NULL DEFAULT 0 CHECK (reserved_parts >= 0),
    locations       INTEGER NOT NULL DEFAULT 0 CHECK (locations >= 0),
    room_left       INTEGER NOT NULL DEFAULT 0 CHECK (room_left >= 0), -- leased, several instances
    room_wanted     INTEGER NOT NULL DEFAULT 0 CHECK (room_wanted >= 0),
    accepting       INTEGER NOT NULL DEFAULT 1 CHECK (accepting IN (0, 1)),
    PRIMARY KEY (backend_id, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE backend_usage (
    backend_id      INTEGER NOT NULL,
    month           TEXT    NOT NULL, -- YYYY-MM
    api_requests    INTEGER NOT NULL DEFAULT 0 CHECK (api_requests >= 0),
    egress_bytes    INTEGER NOT NULL DEFAULT 0 CHECK (egress_bytes >= 0),
    ingress_bytes   INTEGER NOT NULL DEFAULT 0 CHECK (ingress_bytes >= 0),
    PRIMARY KEY (backend_id, month)
) STRICT, WITHOUT ROWID;

-- === objects ===

-- Narrow: HEAD, LIST and conditions are answered from here. blob_id names the one blob that is the
-- whole object; NULL means object_extents (or no bytes at all).
CREATE TABLE objects (
    bucket_id       INTEGER NOT NULL,
    key             BLOB    NOT NULL,
    version_id      BLOB    NOT NULL,
    seq             INTEGER NOT NULL,
    blob_id         BLOB,
    size            INTEGER NOT NULL CHECK (size >= 0),
    etag            TEXT    NOT NULL,
    content_type    TEXT,
    last_modified   INTEGER NOT NULL,
    checksum        TEXT,    -- 'ALGORITHM/KIND'; the value is in object_meta
    parts           INTEGER, -- NULL unless it was uploaded in parts
    PRIMARY KEY (bucket_id, key)
) STRICT, WITHOUT ROWID;

-- Only where there is something to keep.
CREATE TABLE object_meta (
    version_id      BLOB    PRIMARY KEY,
    headers         TEXT,
    tags            TEXT,
    checksum        TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE object_parts (
    version_id      BLOB    NOT NULL,
    n               INTEGER NOT NULL, -- the part number as the client chose it
    size            INTEGER NOT NULL CHECK (size >= 0),
    checksum        TEXT,
    PRIMARY KEY (version_id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE object_extents (
    version_id      BLOB    NOT NULL,
    n               INTEGER NOT NULL,
    blob_id         BLOB    NOT NULL,
    blob_offset     INTEGER NOT NULL CHECK (blob_offset >= 0),
    length          INTEGER NOT NULL CHECK (length >= 0),
    PRIMARY KEY (version_id, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    blob_id         BLOB    PRIMARY KEY,
    bucket_id       INTEGER NOT NULL,
    key             BLOB    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('live', 'condemned')),
    stored_size     INTEGER NOT NULL CHECK (stored_size >= 0),
    plain_size      INTEGER NOT NULL CHECK (plain_size >= 0),
    segments        INTEGER NOT NULL DEFAULT 1,
    crc64           INTEGER,
    encryption      TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE object_locations (
    copy_id         BLOB    PRIMARY KEY,
    blob_id         BLOB    NOT NULL,
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    backend_version TEXT,
    stored_bytes    INTEGER NOT NULL CHECK (stored_bytes >= 0),
    etag            TEXT,
    crc64           INTEGER,
    state           TEXT    NOT NULL CHECK (state IN ('good', 'suspect', 'missing', 'corrupt')),
    verified        INTEGER,
    UNIQUE (blob_id, backend_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX object_locations_by_key ON object_locations (backend_id, backend_key);

-- Intents owned by an upload. Those of plain writes have a file of their own on SQLite.
CREATE TABLE write_intents (
    copy_id         BLOB    PRIMARY KEY,
    blob_id         BLOB    NOT NULL,
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    reserved        INTEGER NOT NULL CHECK (reserved >= 0),
    instance        INTEGER,
    epoch           INTEGER,
    upload_id       BLOB
) STRICT, WITHOUT ROWID;

-- === multipart ===

CREATE TABLE multipart_uploads (
    upload_id       BLOB    PRIMARY KEY,
    bucket_id       INTEGER NOT NULL,
    key             BLOB    NOT NULL,
    state           TEXT    NOT NULL
                    CHECK (state IN ('open', 'completing', 'completed', 'aborting')),
    content_type    TEXT,
    headers         TEXT,
    tags            TEXT,
    checksum        TEXT,             -- 'ALGORITHM/KIND' as announced
    created         INTEGER NOT NULL,
    frozen          BLOB,             -- part number (4 bytes) and attempt (16 bytes), in order
    precondition    TEXT,
    version_id      BLOB,             -- what it became
    etag            TEXT,
    final_checksum  TEXT,             -- 'ALGORITHM:base64/KIND'
    ended           INTEGER,          -- when it was completed or aborted
    purged          INTEGER NOT NULL DEFAULT 0 CHECK (purged IN (0, 1)) -- its part rows are gone
) STRICT, WITHOUT ROWID;
CREATE INDEX multipart_uploads_by_key ON multipart_uploads (bucket_id, key, upload_id)
    WHERE ended IS NULL;
CREATE INDEX multipart_uploads_by_age ON multipart_uploads (created) WHERE ended IS NULL;
CREATE INDEX multipart_uploads_ended ON multipart_uploads (ended) WHERE ended IS NOT NULL;
CREATE INDEX multipart_uploads_aborted ON multipart_uploads (ended)
    WHERE state = 'aborting' AND purged = 1;
CREATE INDEX multipart_uploads_to_purge ON multipart_uploads (ended)
    WHERE ended IS NOT NULL AND purged = 0;
-- Asked by every commit and removal; empty but for the moments of a completion.
CREATE INDEX multipart_uploads_completing ON multipart_uploads (bucket_id, key)
    WHERE state = 'completing';

-- Uploads whose key was written or deleted since their part list was frozen: they displace nothing.
CREATE TABLE multipart_overtaken (
    upload_id       BLOB    PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE multipart_legs (
    copy_id         BLOB    PRIMARY KEY,
    upload_id       BLOB    NOT NULL,
    n               INTEGER NOT NULL, -- order of making
    blob_id         BLOB    NOT NULL,
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('creating', 'open', 'completed')),
    backend_upload  TEXT,
    size            INTEGER CHECK (size >= 0),
    etag            TEXT,
    backend_version TEXT,
    crc64           INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX multipart_legs_by_upload ON multipart_legs (upload_id, n);
CREATE INDEX multipart_legs_by_key ON multipart_legs (backend_id, backend_key);

-- What the client sees. `missing`: the leg that held it lost it; its bytes stay reserved.
CREATE TABLE multipart_parts (
    upload_id       BLOB    NOT NULL,
    number          INTEGER NOT NULL,
    attempt         BLOB    NOT NULL,
    size            INTEGER NOT NULL CHECK (size >= 0),
    etag            TEXT    NOT NULL,
    checksum        TEXT,
    crc64           INTEGER,
    last_modified   INTEGER NOT NULL,
    missing         INTEGER NOT NULL DEFAULT 0 CHECK (missing IN (0, 1)),
    PRIMARY KEY (upload_id, number)
) STRICT, WITHOUT ROWID;

-- What each backend said of a part, and the bytes that it holds for it.
CREATE TABLE multipart_part_copies (
    upload_id       BLOB    NOT NULL,
    number          INTEGER NOT NULL,
    copy_id         BLOB    NOT NULL, -- the leg
    attempt         BLOB    NOT NULL, -- older than the part's: displaced, but still held by the leg
    backend_id      INTEGER NOT NULL,
    reserved        INTEGER NOT NULL CHECK (reserved >= 0),
    etag            TEXT    NOT NULL,
    crc64           INTEGER,
    PRIMARY KEY (upload_id, number, copy_id)
) STRICT, WITHOUT ROWID;

-- Attempts whose bytes may be on a leg although no part says so: under way or of unknown outcome.
CREATE TABLE multipart_claims (
    attempt         BLOB    PRIMARY KEY,
    upload_id       BLOB    NOT NULL,
    number          INTEGER NOT NULL,
    copy_id         BLOB    NOT NULL, -- the leg
    backend_id      INTEGER NOT NULL,
    reserved        INTEGER NOT NULL CHECK (reserved >= 0),
    instance        INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    superseded      INTEGER NOT NULL DEFAULT 0 CHECK (superseded IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX multipart_claims_by_upload ON multipart_claims (upload_id, number);

-- === deletions on backends ===

CREATE TABLE cleanup_queue (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    copy_id         BLOB    NOT NULL,
    blob_id         BLOB,
    kind            TEXT    NOT NULL CHECK (kind IN ('object', 'upload')),
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    backend_version TEXT,
    backend_upload  TEXT,
    size            INTEGER NOT NULL CHECK (size >= 0),
    reason          TEXT    NOT NULL,
    unsettled       INTEGER NOT NULL CHECK (unsettled IN (0, 1)),
    first_pass      INTEGER NOT NULL DEFAULT 0 CHECK (first_pass IN (0, 1)),
    grace           INTEGER NOT NULL DEFAULT 0 CHECK (grace IN (0, 1)), -- waits for readers only
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created         INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    claim           INTEGER, -- epoch of the claimant; not_before is when the claim runs out
    last_error      TEXT
) STRICT;
CREATE INDEX cleanup_queue_due ON cleanup_queue (not_before, id);
CREATE INDEX cleanup_queue_by_copy ON cleanup_queue (copy_id);
CREATE INDEX cleanup_queue_by_key ON cleanup_queue (backend_id, backend_key);

CREATE TABLE cleanup_dlq (
    id              INTEGER PRIMARY KEY, -- the id it had in the queue
    copy_id         BLOB    NOT NULL,
    blob_id         BLOB,
    kind            TEXT    NOT NULL CHECK (kind IN ('object', 'upload')),
    backend_id      INTEGER NOT NULL,
    backend_key     TEXT    NOT NULL,
    backend_version TEXT,
    backend_upload  TEXT,
    size            INTEGER NOT NULL CHECK (size >= 0),
    reason          TEXT    NOT NULL,
    unsettled       INTEGER NOT NULL CHECK (unsettled IN (0, 1)),
    first_pass      INTEGER NOT NULL CHECK (first_pass IN (0, 1)),
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    created         INTEGER NOT NULL,
    died            INTEGER NOT NULL,
    last_error      TEXT    NOT NULL
) STRICT;
CREATE INDEX cleanup_dlq_by_copy ON cleanup_dlq (copy_id);
CREATE INDEX cleanup_dlq_by_key ON cleanup_dlq (backend_id, backend_key);

-- === background work ===

CREATE TABLE worker_leases (
    name            TEXT    PRIMARY KEY,
    owner           INTEGER,
    epoch           INTEGER NOT NULL DEFAULT 0,
    expires         INTEGER NOT NULL DEFAULT 0,
    paused          INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    kind            TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    cursor          BLOB,
    progress        TEXT,
    owner           INTEGER,
    epoch           INTEGER NOT NULL DEFAULT 0,
    created         INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_error      TEXT
) STRICT;
CREATE INDEX jobs_due ON jobs (not_before, id) WHERE state IN ('queued', 'running');

CREATE TABLE notification_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    event_type      TEXT    NOT NULL,
    payload         TEXT    NOT NULL,
    endpoint        TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    claim           INTEGER,
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_error      TEXT
) STRICT;
CREATE INDEX notification_outbox_due ON notification_outbox (not_before, id);

CREATE TABLE mirror_queue (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket_id       INTEGER NOT NULL,
    key             BLOB    NOT NULL,
    version_id      BLOB,    -- NULL: the key was removed
    seq             INTEGER NOT NULL,
    created         INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    claim           INTEGER,
    attempts        INTEGER NOT NULL DEFAULT 0,
    last_error      TEXT
) STRICT;
CREATE INDEX mirror_queue_due ON mirror_queue (not_before, id);
CREATE INDEX mirror_queue_by_key ON mirror_queue (bucket_id, key);
