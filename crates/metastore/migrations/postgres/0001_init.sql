-- The catalogue on PostgreSQL. One transaction; forward only; never edited once released.
--
-- The same logical schema as on SQLite. Identifiers are uuids that sort by the time of drawing. Times
-- are milliseconds since 1970. Client keys are text COLLATE "C": the order of their UTF-8 bytes, which
-- is S3's. Checksums are 'ALGORITHM:base64'. CRC-64 sums are the 64 bits as a signed integer.
--
-- Counters are kept in one slot per instance, so that no row is shared by writers. A slot may be below
-- zero, because an instance removes what another one wrote; the sum over slots never is.

CREATE TABLE catalogue (
    id              integer PRIMARY KEY CHECK (id = 1),
    uuid            uuid    NOT NULL,
    incarnation     uuid    NOT NULL,
    schema_version  integer NOT NULL,
    cluster         text    NOT NULL, -- where it was last opened; another one means a copy
    recovery        text,             -- why nothing may be deleted
    restored        boolean NOT NULL DEFAULT false, -- in recovery state: known, not only suspected
    label_key       bytea   NOT NULL CHECK (length(label_key) = 32), -- knows labels on backends for our own
    retired         text              -- why it must not be used any more
);

-- The order of commits. A number is drawn under the lock of its key.
CREATE SEQUENCE objects_seq;

CREATE TABLE instances (
    instance        integer PRIMARY KEY,
    epoch           bigint  NOT NULL CHECK (epoch >= 0),
    name            text    NOT NULL, -- host and process, for people
    live            boolean NOT NULL,
    heartbeat       bigint  NOT NULL, -- the database's clock
    batch_seq       bigint  NOT NULL DEFAULT 0,
    verdicts        text
) WITH (fillfactor = 20);

-- === names ===

CREATE TABLE buckets (
    bucket_id       bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name            text    COLLATE "C" NOT NULL UNIQUE,
    state           text    NOT NULL CHECK (state IN ('active', 'removed')),
    owner           text    NOT NULL CHECK (owner IN ('config', 'catalogue')),
    created         bigint  NOT NULL
);

CREATE TABLE bucket_slots (
    bucket_id       bigint  NOT NULL,
    instance        integer NOT NULL,
    objects         bigint  NOT NULL DEFAULT 0,
    bytes           bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket_id, instance)
) WITH (fillfactor = 20);

CREATE TABLE backends (
    backend_id      bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name            text    COLLATE "C" NOT NULL UNIQUE,
    state           text    NOT NULL CHECK (state IN ('active', 'draining', 'drained', 'removed')),
    mark            bigint  NOT NULL DEFAULT 0 CHECK (mark >= 0), -- of the marker; 0: none yet
    capabilities    text,
    progress        text,
    epoch           bigint  NOT NULL DEFAULT 0
);

CREATE TABLE backend_slots (
    backend_id      bigint  NOT NULL,
    instance        integer NOT NULL,
    used            bigint  NOT NULL DEFAULT 0,
    orphan          bigint  NOT NULL DEFAULT 0,
    reserved_parts  bigint  NOT NULL DEFAULT 0,
    locations       bigint  NOT NULL DEFAULT 0,
    room_left       bigint  NOT NULL DEFAULT 0 CHECK (room_left >= 0), -- leased, with its open intents
    room_wanted     bigint  NOT NULL DEFAULT 0 CHECK (room_wanted >= 0),
    PRIMARY KEY (backend_id, instance)
) WITH (fillfactor = 20);

CREATE TABLE backend_usage (
    backend_id      bigint  NOT NULL,
    month           text    NOT NULL, -- YYYY-MM
    api_requests    bigint  NOT NULL DEFAULT 0 CHECK (api_requests >= 0),
    egress_bytes    bigint  NOT NULL DEFAULT 0 CHECK (egress_bytes >= 0),
    ingress_bytes   bigint  NOT NULL DEFAULT 0 CHECK (ingress_bytes >= 0),
    PRIMARY KEY (backend_id, month)
) WITH (fillfactor = 50);

-- === objects ===

-- Narrow: HEAD, LIST and conditions are answered from here. blob_id names the one blob that is the
-- whole object; NULL means object_extents (or no bytes at all).
CREATE TABLE objects (
    bucket_id       bigint  NOT NULL,
    key             text    COLLATE "C" NOT NULL,
    version_id      uuid    NOT NULL,
    seq             bigint  NOT NULL,
    blob_id         uuid,
    size            bigint  NOT NULL CHECK (size >= 0),
    etag            text    NOT NULL,
    content_type    text,
    last_modified   bigint  NOT NULL,
    checksum        text,    -- 'ALGORITHM/KIND'; the value is in object_meta
    parts           integer, -- NULL unless it was uploaded in parts
    PRIMARY KEY (bucket_id, key)
);

-- Only where there is something to keep.
CREATE TABLE object_meta (
    version_id      uuid    PRIMARY KEY,
    headers         text,
    tags            text,
    checksum        text
);

CREATE TABLE object_parts (
    version_id      uuid    NOT NULL,
    n               integer NOT NULL, -- the part number as the client chose it
    size            bigint  NOT NULL CHECK (size >= 0),
    checksum        text,
    PRIMARY KEY (version_id, n)
);

CREATE TABLE object_extents (
    version_id      uuid    NOT NULL,
    n               integer NOT NULL,
    blob_id         uuid    NOT NULL,
    blob_offset     bigint  NOT NULL CHECK (blob_offset >= 0),
    length          bigint  NOT NULL CHECK (length >= 0),
    PRIMARY KEY (version_id, n)
);

CREATE TABLE blobs (
    blob_id         uuid    PRIMARY KEY,
    bucket_id       bigint  NOT NULL,
    key             text    COLLATE "C" NOT NULL,
    state           text    NOT NULL CHECK (state IN ('live', 'condemned')),
    stored_size     bigint  NOT NULL CHECK (stored_size >= 0),
    plain_size      bigint  NOT NULL CHECK (plain_size >= 0),
    segments        integer NOT NULL DEFAULT 1,
    crc64           bigint,
    encryption      text
);

CREATE TABLE object_locations (
    copy_id         uuid    PRIMARY KEY,
    blob_id         uuid    NOT NULL,
    backend_id      bigint  NOT NULL,
    backend_key     text    COLLATE "C" NOT NULL,
    backend_version text,
    stored_bytes    bigint  NOT NULL CHECK (stored_bytes >= 0),
    etag            text,
    crc64           bigint,
    state           text    NOT NULL CHECK (state IN ('good', 'suspect', 'missing', 'corrupt')),
    verified        bigint,
    UNIQUE (blob_id, backend_id)
);
CREATE INDEX object_locations_by_key ON object_locations (backend_id, backend_key);

CREATE TABLE write_intents (
    copy_id         uuid    PRIMARY KEY,
    blob_id         uuid    NOT NULL,
    backend_id      bigint  NOT NULL,
    backend_key     text    COLLATE "C" NOT NULL,
    reserved        bigint  NOT NULL CHECK (reserved >= 0),
    instance        integer NOT NULL,
    epoch           bigint  NOT NULL
);

-- === multipart ===

CREATE TABLE multipart_uploads (
    upload_id       uuid    PRIMARY KEY,
    bucket_id       bigint  NOT NULL,
    key             text    COLLATE "C" NOT NULL,
    state           text    NOT NULL
                    CHECK (state IN ('open', 'completing', 'completed', 'aborting')),
    content_type    text,
    headers         text,
    tags            text,
    checksum        text,             -- 'ALGORITHM/KIND' as announced
    created         bigint  NOT NULL,
    frozen          bytea,            -- part number (4 bytes) and attempt (16 bytes), in order
    precondition    text,
    driver          integer,          -- the instance that completes it, and its epoch
    driver_epoch    bigint,
    version_id      uuid,             -- what it became
    etag            text,
    final_checksum  text,             -- 'ALGORITHM:base64/KIND'
    ended           bigint,           -- when it was completed or aborted
    purged          boolean NOT NULL DEFAULT false -- its part rows are gone
);
CREATE INDEX multipart_uploads_by_key ON multipart_uploads (bucket_id, key, upload_id)
    WHERE ended IS NULL;
CREATE INDEX multipart_uploads_by_age ON multipart_uploads (created) WHERE ended IS NULL;
CREATE INDEX multipart_uploads_ended ON multipart_uploads (ended) WHERE ended IS NOT NULL;
CREATE INDEX multipart_uploads_aborted ON multipart_uploads (ended)
    WHERE state = 'aborting' AND purged;
CREATE INDEX multipart_uploads_to_purge ON multipart_uploads (ended)
    WHERE ended IS NOT NULL AND NOT purged;
-- Asked by every commit and removal; empty but for the moments of a completion.
CREATE INDEX multipart_uploads_completing ON multipart_uploads (bucket_id, key)
    WHERE state = 'completing';

-- Uploads whose key was written or deleted since their part list was frozen: they displace nothing. Not a
-- column of the upload: a commit locks its key, and must not wait for rows behind the locks of uploads.
CREATE TABLE multipart_overtaken (
    upload_id       uuid    PRIMARY KEY
);

CREATE TABLE multipart_legs (
    copy_id         uuid    PRIMARY KEY,
    upload_id       uuid    NOT NULL,
    n               integer NOT NULL, -- order of making
    blob_id         uuid    NOT NULL,
    backend_id      bigint  NOT NULL,
    backend_key     text    COLLATE "C" NOT NULL,
    state           text    NOT NULL CHECK (state IN ('creating', 'open', 'completed')),
    backend_upload  text,
    size            bigint  CHECK (size >= 0),
    etag            text,
    backend_version text,
    crc64           bigint
);
CREATE UNIQUE INDEX multipart_legs_by_upload ON multipart_legs (upload_id, n);
CREATE INDEX multipart_legs_by_key ON multipart_legs (backend_id, backend_key);

-- What the client sees. `missing`: the leg that held it lost it; its bytes stay reserved.
CREATE TABLE multipart_parts (
    upload_id       uuid    NOT NULL,
    number          integer NOT NULL,
    attempt         uuid    NOT NULL,
    size            bigint  NOT NULL CHECK (size >= 0),
    etag            text    NOT NULL,
    checksum        text,
    crc64           bigint,
    last_modified   bigint  NOT NULL,
    missing         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (upload_id, number)
);

-- What each backend said of a part, and the bytes that it holds for it.
CREATE TABLE multipart_part_copies (
    upload_id       uuid    NOT NULL,
    number          integer NOT NULL,
    copy_id         uuid    NOT NULL, -- the leg
    attempt         uuid    NOT NULL, -- older than the part's: displaced, but still held by the leg
    backend_id      bigint  NOT NULL,
    reserved        bigint  NOT NULL CHECK (reserved >= 0),
    etag            text    NOT NULL,
    crc64           bigint,
    PRIMARY KEY (upload_id, number, copy_id)
);

-- Attempts whose bytes may be on a leg although no part says so: under way or of unknown outcome.
CREATE TABLE multipart_claims (
    attempt         uuid    PRIMARY KEY,
    upload_id       uuid    NOT NULL,
    number          integer NOT NULL,
    copy_id         uuid    NOT NULL, -- the leg
    backend_id      bigint  NOT NULL,
    reserved        bigint  NOT NULL CHECK (reserved >= 0),
    instance        integer NOT NULL,
    epoch           bigint  NOT NULL,
    superseded      boolean NOT NULL DEFAULT false,
    under_way       boolean NOT NULL DEFAULT true -- its instance is still writing
);
CREATE INDEX multipart_claims_by_upload ON multipart_claims (upload_id, number);

-- === deletions on backends ===

CREATE TABLE cleanup_queue (
    id              bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    copy_id         uuid    NOT NULL,
    blob_id         uuid,
    kind            text    NOT NULL CHECK (kind IN ('object', 'upload')),
    backend_id      bigint  NOT NULL,
    backend_key     text    COLLATE "C" NOT NULL,
    backend_version text,
    backend_upload  text,
    size            bigint  NOT NULL CHECK (size >= 0),
    reason          text    NOT NULL,
    unsettled       boolean NOT NULL,
    first_pass      boolean NOT NULL DEFAULT false,
    grace           boolean NOT NULL DEFAULT false, -- waits for readers only
    attempts        integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    created         bigint  NOT NULL,
    not_before      bigint  NOT NULL,
    claim           bigint, -- epoch of the claimant; not_before is when the claim runs out
    last_error      text
);
CREATE INDEX cleanup_queue_due ON cleanup_queue (not_before, id);
CREATE INDEX cleanup_queue_by_copy ON cleanup_queue (copy_id);
CREATE INDEX cleanup_queue_by_key ON cleanup_queue (backend_id, backend_key);

CREATE TABLE cleanup_dlq (
    id              bigint  PRIMARY KEY, -- the id it had in the queue
    copy_id         uuid    NOT NULL,
    blob_id         uuid,
    kind            text    NOT NULL CHECK (kind IN ('object', 'upload')),
    backend_id      bigint  NOT NULL,
    backend_key     text    COLLATE "C" NOT NULL,
    backend_version text,
    backend_upload  text,
    size            bigint  NOT NULL CHECK (size >= 0),
    reason          text    NOT NULL,
    unsettled       boolean NOT NULL,
    first_pass      boolean NOT NULL,
    attempts        integer NOT NULL CHECK (attempts >= 0),
    created         bigint  NOT NULL,
    died            bigint  NOT NULL,
    last_error      text    NOT NULL
);
CREATE INDEX cleanup_dlq_by_copy ON cleanup_dlq (copy_id);
CREATE INDEX cleanup_dlq_by_key ON cleanup_dlq (backend_id, backend_key);

-- === background work ===

CREATE TABLE worker_leases (
    name            text    PRIMARY KEY,
    owner           integer,
    epoch           bigint  NOT NULL DEFAULT 0,
    expires         bigint  NOT NULL DEFAULT 0,
    paused          boolean NOT NULL DEFAULT false
);

CREATE TABLE jobs (
    id              bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind            text    NOT NULL,
    subject         text    NOT NULL,
    state           text    NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    cursor          bytea,
    progress        text,
    owner           integer,
    epoch           bigint  NOT NULL DEFAULT 0,
    created         bigint  NOT NULL,
    not_before      bigint  NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text
);
CREATE INDEX jobs_due ON jobs (not_before, id) WHERE state IN ('queued', 'running');

CREATE TABLE notification_outbox (
    id              bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    event_type      text    NOT NULL,
    payload         text    NOT NULL,
    endpoint        text    NOT NULL,
    created         bigint  NOT NULL,
    not_before      bigint  NOT NULL,
    claim           bigint,
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text
);
CREATE INDEX notification_outbox_due ON notification_outbox (not_before, id);

CREATE TABLE mirror_queue (
    id              bigint  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    bucket_id       bigint  NOT NULL,
    key             text    COLLATE "C" NOT NULL,
    version_id      uuid,    -- NULL: the key was removed
    seq             bigint  NOT NULL,
    created         bigint  NOT NULL,
    not_before      bigint  NOT NULL,
    claim           bigint,
    attempts        integer NOT NULL DEFAULT 0,
    last_error      text
);
CREATE INDEX mirror_queue_due ON mirror_queue (not_before, id);
CREATE INDEX mirror_queue_by_key ON mirror_queue (bucket_id, key);
