-- What a batch does, as functions: a batch is one call, so one flight, and no lock is held while a
-- client thinks. A function that is VOLATILE sees with each of its statements what was committed until
-- then, so what is read behind a lock is current.
--
-- Jobs come as JSON and are answered by JSON:
--   v  the verdict
--   d  counters that move: [[backend, used, orphan, reserved parts, locations, room], …]
--   b  counters of a bucket that move: [bucket, objects, bytes]
-- The batch adds the counters up and writes each row once. A job that answers with another verdict
-- than success has changed nothing. What can only be found out by failing (a broken rule of the
-- schema) fails the batch; the caller then tries its halves.

-- === small things ===

-- Milliseconds since 1970 by the database's clock: heartbeats and leases only.
CREATE FUNCTION s3o_clock() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- Whether a precondition (nothing, "absent", "any" or a list of tags) holds of the current tag.
CREATE FUNCTION s3o_holds(p jsonb, p_etag text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p IS NULL OR p = 'null' THEN true
        WHEN p = '"absent"' THEN p_etag IS NULL
        WHEN p = '"any"' THEN p_etag IS NOT NULL
        ELSE p_etag IS NOT NULL AND p ? p_etag
    END
$$;

CREATE FUNCTION s3o_damaged(p_what text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('v', 'damaged', 'what', p_what)
$$;

-- === objects ===

-- Queues all copies of these blobs for deletion, when readers are done with them, and forgets the versions;
-- the counters, by blob.
CREATE FUNCTION s3o_displace_blobs(p_now bigint, p_grace bigint, p_versions uuid[], p_blobs uuid[],
    p_reason text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    moved jsonb;
BEGIN
    WITH gone AS (
        DELETE FROM object_locations WHERE blob_id = ANY (p_blobs)
        RETURNING copy_id, blob_id, backend_id, backend_key, backend_version, stored_bytes
    ), queued AS (
        INSERT INTO cleanup_queue (copy_id, blob_id, kind, backend_id, backend_key,
            backend_version, size, reason, unsettled, grace, created, not_before)
        SELECT copy_id, blob_id, 'object', backend_id, backend_key, backend_version,
            stored_bytes, p_reason, false, true, p_now, p_now + p_grace
        FROM gone
    ), by_blob AS (
        SELECT blob_id,
            jsonb_agg(jsonb_build_array(backend_id, -stored_bytes, stored_bytes, 0, -1, 0)) AS deltas
        FROM gone GROUP BY blob_id
    )
    SELECT jsonb_object_agg(blob_id, deltas) INTO moved FROM by_blob;
    DELETE FROM blobs WHERE blob_id = ANY (p_blobs);
    DELETE FROM object_meta WHERE version_id = ANY (p_versions);
    DELETE FROM object_parts WHERE version_id = ANY (p_versions);
    RETURN coalesce(moved, '{}');
END
$$;

-- The same for one version, of one blob or of several; the counters.
CREATE FUNCTION s3o_displace(p_now bigint, p_grace bigint, p_version uuid, p_blob uuid, p_reason text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    blobs_gone uuid[];
    moved jsonb;
BEGIN
    IF p_blob IS NULL THEN
        SELECT array_agg(DISTINCT blob_id) INTO blobs_gone
        FROM object_extents WHERE version_id = p_version;
        DELETE FROM object_extents WHERE version_id = p_version;
    ELSE
        blobs_gone := ARRAY[p_blob];
    END IF;
    moved := s3o_displace_blobs(p_now, p_grace, ARRAY[p_version], blobs_gone, p_reason);
    RETURN (SELECT coalesce(jsonb_agg(d), '[]')
        FROM jsonb_each(moved) m, jsonb_array_elements(m.value) d);
END
$$;

-- A key was written or deleted: completions of it that are frozen displace nothing any more. The lock
-- of the key is held.
CREATE FUNCTION s3o_overtake(p_bucket bigint, p_key text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO multipart_overtaken (upload_id)
    SELECT upload_id FROM multipart_uploads
    WHERE bucket_id = p_bucket AND key = p_key AND state = 'completing'
    ON CONFLICT DO NOTHING;
END
$$;

-- Makes a version exist whose copies lie at these places, if its precondition holds.
-- Places: {copy: [backend, key, reserved bytes, bytes of leased room that end with it]}.
CREATE FUNCTION s3o_put(p_now bigint, p_grace bigint, j jsonb, p_places jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    c objects%ROWTYPE;
    there boolean;
    p_bucket bigint := (j->>'bucket')::bigint;
    p_key text := j->>'key';
    p_version uuid := (j->>'version')::uuid;
    p_size bigint := (j->>'size')::bigint;
    whole uuid := (j->>'whole')::uuid;
    what text;
    moved jsonb := '[]';
    placed jsonb;
    counted jsonb;
    place bigint;
BEGIN
    SELECT * INTO c FROM objects WHERE bucket_id = p_bucket AND key = p_key;
    there := FOUND;
    IF NOT s3o_holds(j->'if', c.etag) THEN
        IF NOT there AND j->'if' <> '"absent"' THEN
            RETURN '{"v": "absent"}';
        END IF;
        RETURN '{"v": "precondition"}';
    END IF;
    IF j ? 'same' THEN
        IF NOT there OR c.version_id <> (j->>'same')::uuid THEN
            RETURN '{"v": "changed"}';
        END IF;
        IF c.size <> p_size THEN
            RETURN s3o_damaged('refused to commit new metadata with another size');
        END IF;
        UPDATE object_extents SET version_id = p_version WHERE version_id = c.version_id;
        DELETE FROM object_meta WHERE version_id = c.version_id;
        DELETE FROM object_parts WHERE version_id = c.version_id;
        whole := c.blob_id;
    ELSE
        PERFORM 1 FROM jsonb_array_elements(j->'blobs') b, jsonb_array_elements(b->'copies') k
        WHERE NOT p_places ? (k->>'copy');
        IF FOUND THEN
            RETURN '{"v": "gone"}';
        END IF;
        SELECT format('refused copy %s: it stores %s bytes and has reserved %s', k->>'copy',
            b->>'size', p_places->(k->>'copy')->>2)
        INTO what
        FROM jsonb_array_elements(j->'blobs') b, jsonb_array_elements(b->'copies') k
        WHERE (b->>'size')::bigint > (p_places->(k->>'copy')->>2)::bigint;
        IF FOUND THEN
            RETURN s3o_damaged(what);
        END IF;
        PERFORM 1 FROM buckets WHERE bucket_id = p_bucket;
        IF NOT FOUND THEN
            RETURN '{"v": "no_bucket"}';
        END IF;
        IF there THEN
            moved := s3o_displace(p_now, p_grace, c.version_id, c.blob_id, 'overwrite_displaced');
        END IF;
        counted := jsonb_build_array(p_bucket, CASE WHEN there THEN 0 ELSE 1 END,
            p_size - coalesce(c.size, 0));
        INSERT INTO blobs (blob_id, bucket_id, key, state, stored_size, plain_size, crc64)
        SELECT (b->>'blob')::uuid, p_bucket, p_key, 'live', (b->>'size')::bigint,
            (b->>'size')::bigint, (b->>'crc')::bigint
        FROM jsonb_array_elements(j->'blobs') b;
        WITH new AS (
            INSERT INTO object_locations (copy_id, blob_id, backend_id, backend_key,
                backend_version, stored_bytes, etag, crc64, state)
            SELECT (k->>'copy')::uuid, (b->>'blob')::uuid, (at.place->>0)::bigint, at.place->>1,
                k->>'version', (b->>'size')::bigint, k->>'etag', (k->>'crc')::bigint, 'good'
            FROM jsonb_array_elements(j->'blobs') b, jsonb_array_elements(b->'copies') k,
                LATERAL (SELECT p_places->(k->>'copy') AS place) at
            RETURNING copy_id, backend_id, stored_bytes
        )
        SELECT jsonb_agg(jsonb_build_array(backend_id, stored_bytes, 0, 0, 1,
            -(p_places->(copy_id::text)->>3)::bigint))
        INTO placed FROM new;
        moved := moved || coalesce(placed, '[]');
        IF whole IS NULL THEN
            INSERT INTO object_extents (version_id, n, blob_id, blob_offset, length)
            SELECT p_version, e.n - 1, (e.x->>0)::uuid, (e.x->>1)::bigint, (e.x->>2)::bigint
            FROM jsonb_array_elements(j->'extents') WITH ORDINALITY e (x, n);
        END IF;
    END IF;
    IF j ? 'parts' THEN
        INSERT INTO object_parts (version_id, n, size, checksum)
        SELECT p_version, (x->>0)::integer, (x->>1)::bigint, x->>2
        FROM jsonb_array_elements(j->'parts') x;
    END IF;
    IF j ? 'meta' THEN
        INSERT INTO object_meta (version_id, headers, tags, checksum)
        VALUES (p_version, j->'meta'->>'headers', j->'meta'->>'tags', j->'meta'->>'checksum');
    END IF;
    place := nextval('objects_seq');
    INSERT INTO objects (bucket_id, key, version_id, seq, blob_id, size, etag, content_type,
        last_modified, checksum, parts)
    VALUES (p_bucket, p_key, p_version, place, whole, p_size, j->>'etag', j->>'content_type',
        (j->>'modified')::bigint, j->>'algorithm', (j->>'part_count')::integer)
    ON CONFLICT (bucket_id, key) DO UPDATE SET version_id = excluded.version_id,
        seq = excluded.seq, blob_id = excluded.blob_id, size = excluded.size,
        etag = excluded.etag, content_type = excluded.content_type,
        last_modified = excluded.last_modified, checksum = excluded.checksum,
        parts = excluded.parts;
    PERFORM s3o_overtake(p_bucket, p_key);
    RETURN jsonb_build_object('v', 'committed', 'seq', place, 'd', moved, 'b', counted);
END
$$;

-- Intents become locations.
CREATE FUNCTION s3o_commit(p_instance integer, p_now bigint, p_grace bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    copies uuid[];
    open_count bigint;
    verdict jsonb;
BEGIN
    IF NOT j ? 'places' THEN
        RETURN s3o_put(p_now, p_grace, j, '{}');
    END IF;
    SELECT array_agg(k::uuid) INTO copies FROM jsonb_object_keys(j->'places') k;
    SELECT count(*) INTO open_count FROM write_intents
    WHERE copy_id = ANY (copies) AND instance = p_instance;
    IF open_count <> cardinality(copies) THEN
        RETURN '{"v": "gone"}';
    END IF;
    verdict := s3o_put(p_now, p_grace, j, j->'places');
    IF verdict->>'v' = 'committed' THEN
        DELETE FROM write_intents WHERE copy_id = ANY (copies);
    END IF;
    RETURN verdict;
END
$$;

-- Commits of versions of one blob each, whose keys all differ: a handful of statements for all of them
-- instead of a dozen for each. One that cannot simply be written (its condition fails, an intent is gone,
-- what it replaces has several blobs) goes the way of the others, `s3o_commit`. One answer per job.
CREATE FUNCTION s3o_commit_all(p_instance integer, p_now bigint, p_grace bigint, p_jobs jsonb)
RETURNS jsonb[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
DECLARE
    plain boolean[];
    -- What each replaces.
    old_versions uuid[];
    old_blobs uuid[];
    old_sizes bigint[];
    moved jsonb := '{}';
    copies uuid[];
    places bigint[];
    answers jsonb[];
BEGIN
    SELECT array_agg(f.plain ORDER BY f.i), array_agg(f.version_id ORDER BY f.i),
        array_agg(f.blob_id ORDER BY f.i), array_agg(f.size ORDER BY f.i)
    INTO plain, old_versions, old_blobs, old_sizes
    FROM (
        SELECT e.i, o.version_id, o.blob_id, o.size,
            (NOT e.j ? 'if' OR s3o_holds(e.j->'if', o.etag))
            AND (o.version_id IS NULL OR o.blob_id IS NOT NULL)
            AND EXISTS (SELECT 1 FROM buckets b WHERE b.bucket_id = (e.j->>'bucket')::bigint)
            AND NOT EXISTS (
                SELECT 1 FROM jsonb_object_keys(e.j->'places') k
                WHERE NOT EXISTS (
                    SELECT 1 FROM write_intents w
                    WHERE w.copy_id = k::uuid AND w.instance = p_instance
                )
            ) AS plain
        FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
        LEFT JOIN objects o ON o.bucket_id = (e.j->>'bucket')::bigint AND o.key = e.j->>'key'
    ) f;
    IF EXISTS (SELECT 1 FROM unnest(plain, old_blobs) u (p, b) WHERE p AND b IS NOT NULL) THEN
        moved := s3o_displace_blobs(p_now, p_grace,
            (SELECT array_agg(v) FROM unnest(plain, old_versions) u (p, v) WHERE p AND v IS NOT NULL),
            (SELECT array_agg(b) FROM unnest(plain, old_blobs) u (p, b) WHERE p AND b IS NOT NULL),
            'overwrite_displaced');
    END IF;
    INSERT INTO blobs (blob_id, bucket_id, key, state, stored_size, plain_size, crc64)
    SELECT (b->>'blob')::uuid, (e.j->>'bucket')::bigint, e.j->>'key', 'live', (b->>'size')::bigint,
        (b->>'size')::bigint, (b->>'crc')::bigint
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i), jsonb_array_elements(e.j->'blobs') b
    WHERE plain[e.i];
    INSERT INTO object_locations (copy_id, blob_id, backend_id, backend_key, backend_version,
        stored_bytes, etag, crc64, state)
    SELECT (k->>'copy')::uuid, (b->>'blob')::uuid, (at.place->>0)::bigint, at.place->>1,
        k->>'version', (b->>'size')::bigint, k->>'etag', (k->>'crc')::bigint, 'good'
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i), jsonb_array_elements(e.j->'blobs') b,
        jsonb_array_elements(b->'copies') k,
        LATERAL (SELECT e.j->'places'->(k->>'copy') AS place) at
    WHERE plain[e.i];
    SELECT array_agg(k::uuid) INTO copies
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i), jsonb_object_keys(e.j->'places') k
    WHERE plain[e.i];
    DELETE FROM write_intents WHERE copy_id = ANY (copies);
    INSERT INTO object_meta (version_id, headers, tags, checksum)
    SELECT (e.j->>'version')::uuid, e.j->'meta'->>'headers', e.j->'meta'->>'tags',
        e.j->'meta'->>'checksum'
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
    WHERE plain[e.i] AND e.j ? 'meta';
    SELECT array_agg(nextval('objects_seq')) INTO places FROM generate_series(1, cardinality(plain));
    INSERT INTO objects (bucket_id, key, version_id, seq, blob_id, size, etag, content_type,
        last_modified, checksum, parts)
    SELECT (e.j->>'bucket')::bigint, e.j->>'key', (e.j->>'version')::uuid, places[e.i],
        (e.j->>'whole')::uuid, (e.j->>'size')::bigint, e.j->>'etag', e.j->>'content_type',
        (e.j->>'modified')::bigint, e.j->>'algorithm', NULL
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
    WHERE plain[e.i]
    ON CONFLICT (bucket_id, key) DO UPDATE SET version_id = excluded.version_id,
        seq = excluded.seq, blob_id = excluded.blob_id, size = excluded.size,
        etag = excluded.etag, content_type = excluded.content_type,
        last_modified = excluded.last_modified, checksum = excluded.checksum,
        parts = excluded.parts;
    -- As `s3o_overtake`. Nearly always there is none, which costs a look at an empty index.
    IF EXISTS (SELECT 1 FROM multipart_uploads WHERE state = 'completing') THEN
        INSERT INTO multipart_overtaken (upload_id)
        SELECT u.upload_id FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
        JOIN multipart_uploads u ON u.bucket_id = (e.j->>'bucket')::bigint AND u.key = e.j->>'key'
        WHERE plain[e.i] AND u.state = 'completing'
        ON CONFLICT DO NOTHING;
    END IF;
    SELECT array_agg(
        CASE WHEN plain[e.i] THEN jsonb_build_object('v', 'committed', 'seq', places[e.i],
            'd', coalesce(moved->(old_blobs[e.i]::text), '[]') || (
                SELECT jsonb_agg(jsonb_build_array((p.place->>0)::bigint, (e.j->>'size')::bigint, 0, 0, 1,
                    -(p.place->>3)::bigint))
                FROM jsonb_each(e.j->'places') p (copy, place)),
            'b', jsonb_build_array((e.j->>'bucket')::bigint,
                CASE WHEN old_versions[e.i] IS NULL THEN 1 ELSE 0 END,
                (e.j->>'size')::bigint - coalesce(old_sizes[e.i], 0)))
        ELSE s3o_commit(p_instance, p_now, p_grace, e.j) END ORDER BY e.i)
    INTO answers
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i);
    RETURN answers;
END
$$;

-- Makes a version exist whose bytes were found; their room is taken whatever the quota says, because
-- they are there.
CREATE FUNCTION s3o_adopt(p_now bigint, p_grace bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    copies uuid[];
    verdict jsonb;
BEGIN
    -- Version ids are drawn in the order of time by our own clock; a backend's dates are coarse.
    PERFORM 1 FROM objects WHERE bucket_id = (j->>'bucket')::bigint AND key = j->>'key'
        AND version_id >= (j->>'version')::uuid;
    IF FOUND THEN
        RETURN '{"v": "kept", "why": "version"}';
    END IF;
    PERFORM 1 FROM blobs WHERE blob_id IN (
        SELECT (b->>'blob')::uuid FROM jsonb_array_elements(j->'blobs') b);
    IF FOUND THEN
        RETURN '{"v": "kept", "why": "known_blob"}';
    END IF;
    -- What is kept beside an object goes by its version: another one's must not become this one's.
    PERFORM 1 FROM object_meta WHERE version_id = (j->>'version')::uuid
    UNION ALL SELECT 1 FROM object_parts WHERE version_id = (j->>'version')::uuid
    UNION ALL SELECT 1 FROM object_extents WHERE version_id = (j->>'version')::uuid;
    IF FOUND THEN
        RETURN '{"v": "kept", "why": "known_version"}';
    END IF;
    SELECT array_agg(k::uuid) INTO copies FROM jsonb_object_keys(j->'places') k;
    PERFORM 1 FROM object_locations WHERE copy_id = ANY (copies)
    UNION ALL SELECT 1 FROM cleanup_queue WHERE copy_id = ANY (copies)
    UNION ALL SELECT 1 FROM cleanup_dlq WHERE copy_id = ANY (copies)
    UNION ALL SELECT 1 FROM multipart_legs WHERE copy_id = ANY (copies)
    UNION ALL SELECT 1 FROM write_intents WHERE copy_id = ANY (copies);
    IF FOUND THEN
        RETURN '{"v": "kept", "why": "copy"}';
    END IF;
    verdict := s3o_put(p_now, p_grace, j, j->'places');
    IF verdict->>'v' IN ('committed', 'damaged') THEN
        RETURN verdict;
    END IF;
    RETURN '{"v": "kept"}';
END
$$;

CREATE FUNCTION s3o_remove(p_now bigint, p_grace bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    c objects%ROWTYPE;
    p_bucket bigint := (j->>'bucket')::bigint;
    moved jsonb;
BEGIN
    SELECT * INTO c FROM objects WHERE bucket_id = p_bucket AND key = j->>'key';
    IF NOT FOUND THEN
        -- The client is told that the key is absent, and so it stays.
        PERFORM s3o_overtake(p_bucket, j->>'key');
        RETURN '{"v": "absent"}';
    END IF;
    IF NOT s3o_holds(j->'if', c.etag) THEN
        RETURN '{"v": "precondition"}';
    END IF;
    PERFORM s3o_overtake(p_bucket, j->>'key');
    moved := s3o_displace(p_now, p_grace, c.version_id, c.blob_id, 'object_deleted');
    DELETE FROM objects WHERE bucket_id = p_bucket AND key = j->>'key';
    RETURN jsonb_build_object('v', 'removed', 'version', c.version_id, 'size', c.size,
        'd', moved, 'b', jsonb_build_array(p_bucket, -1, -c.size));
END
$$;

-- Removals of keys that all differ: a handful of statements for all of them. A version of several blobs, and
-- what is not removed, goes the way of the others, `s3o_remove`. One answer per job.
CREATE FUNCTION s3o_remove_all(p_now bigint, p_grace bigint, p_jobs jsonb)
RETURNS jsonb[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off AS $$
DECLARE
    plain boolean[];
    versions uuid[];
    blobs_gone uuid[];
    sizes bigint[];
    moved jsonb := '{}';
    answers jsonb[];
BEGIN
    SELECT array_agg(f.plain ORDER BY f.i), array_agg(f.version_id ORDER BY f.i),
        array_agg(f.blob_id ORDER BY f.i), array_agg(f.size ORDER BY f.i)
    INTO plain, versions, blobs_gone, sizes
    FROM (
        SELECT e.i, o.version_id, o.blob_id, o.size,
            o.blob_id IS NOT NULL AND (NOT e.j ? 'if' OR s3o_holds(e.j->'if', o.etag)) AS plain
        FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
        LEFT JOIN objects o ON o.bucket_id = (e.j->>'bucket')::bigint AND o.key = e.j->>'key'
    ) f;
    IF true = ANY (plain) THEN
        moved := s3o_displace_blobs(p_now, p_grace,
            (SELECT array_agg(v) FROM unnest(plain, versions) u (p, v) WHERE p),
            (SELECT array_agg(b) FROM unnest(plain, blobs_gone) u (p, b) WHERE p),
            'object_deleted');
        DELETE FROM objects o
        USING jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
        WHERE plain[e.i] AND o.bucket_id = (e.j->>'bucket')::bigint AND o.key = e.j->>'key';
        -- As `s3o_overtake`.
        IF EXISTS (SELECT 1 FROM multipart_uploads WHERE state = 'completing') THEN
            INSERT INTO multipart_overtaken (upload_id)
            SELECT u.upload_id FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i)
            JOIN multipart_uploads u
                ON u.bucket_id = (e.j->>'bucket')::bigint AND u.key = e.j->>'key'
            WHERE plain[e.i] AND u.state = 'completing'
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;
    SELECT array_agg(
        CASE WHEN plain[e.i] THEN jsonb_build_object('v', 'removed', 'version', versions[e.i],
            'size', sizes[e.i], 'd', coalesce(moved->(blobs_gone[e.i]::text), '[]'),
            'b', jsonb_build_array((e.j->>'bucket')::bigint, -1, -sizes[e.i]))
        ELSE s3o_remove(p_now, p_grace, e.j) END ORDER BY e.i)
    INTO answers
    FROM jsonb_array_elements(p_jobs) WITH ORDINALITY e (j, i);
    RETURN answers;
END
$$;

-- Other tags for the current version. The version stays: tags are no part of what conditions and
-- listings compare.
CREATE FUNCTION s3o_retag(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    retagged boolean;
BEGIN
    INSERT INTO object_meta (version_id, tags)
    SELECT version_id, j->>'tags' FROM objects
    WHERE bucket_id = (j->>'bucket')::bigint AND key = j->>'key'
    ON CONFLICT (version_id) DO UPDATE SET tags = excluded.tags;
    retagged := FOUND;
    IF retagged THEN
        PERFORM s3o_overtake((j->>'bucket')::bigint, j->>'key');
    END IF;
    RETURN jsonb_build_object('v', CASE WHEN retagged THEN 'done' ELSE 'absent' END);
END
$$;

-- === the cleanup queue ===

-- Intents out, rows in; due at once.
CREATE FUNCTION s3o_give_up(p_instance integer, p_now bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    moved jsonb;
    given bigint;
BEGIN
    WITH gone AS (
        DELETE FROM write_intents i USING jsonb_array_elements(j->'rows') r
        WHERE i.copy_id = (r->>0)::uuid AND i.instance = p_instance
        RETURNING i.copy_id, i.blob_id, i.backend_id, i.backend_key, i.reserved,
            (r->>1)::boolean AS unsettled
    ), queued AS (
        INSERT INTO cleanup_queue (copy_id, blob_id, kind, backend_id, backend_key, size, reason,
            unsettled, created, not_before)
        SELECT copy_id, blob_id, 'object', backend_id, backend_key, reserved, 'intent_abandoned',
            unsettled, p_now, p_now
        FROM gone
    )
    SELECT count(*), jsonb_agg(jsonb_build_array(backend_id, 0, reserved, 0, 0, -reserved))
    INTO given, moved FROM gone;
    RETURN jsonb_build_object('v', 'count', 'n', given, 'd', coalesce(moved, '[]'));
END
$$;

CREATE FUNCTION s3o_claim_cleanup(p_claimant bigint, p_now bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    items jsonb;
BEGIN
    PERFORM 1 FROM catalogue WHERE recovery IS NOT NULL;
    IF FOUND THEN
        RETURN '{"v": "items", "items": []}';
    END IF;
    WITH due AS (
        SELECT id FROM cleanup_queue WHERE not_before <= p_now
        ORDER BY not_before, id LIMIT (j->>'limit')::bigint FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE cleanup_queue q SET claim = p_claimant, not_before = p_now + (j->>'visible')::bigint
        FROM due, (SELECT id, not_before FROM cleanup_queue) was
        WHERE q.id = due.id AND was.id = q.id
        RETURNING q.id, was.not_before AS due_since, q.copy_id, q.blob_id, q.kind, q.backend_id,
            q.backend_key, q.backend_version, q.backend_upload, q.size, q.reason, q.unsettled,
            q.first_pass, q.attempts
    )
    SELECT jsonb_agg(jsonb_build_array(id, copy_id, blob_id, kind, backend_id, backend_key,
        backend_version, backend_upload, size, reason, unsettled, first_pass, attempts)
        ORDER BY due_since, id)
    INTO items FROM claimed;
    RETURN jsonb_build_object('v', 'items', 'items', coalesce(items, '[]'));
END
$$;

-- A row that is gone was settled before: the report is late and changes nothing.
CREATE FUNCTION s3o_report_cleanup(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r jsonb;
    moved jsonb;
BEGIN
    WITH done AS (
        DELETE FROM cleanup_queue WHERE id IN (
            SELECT (x->>0)::bigint FROM jsonb_array_elements(j->'reports') x WHERE x->>1 = 'done')
        RETURNING backend_id, size
    ), freed AS (SELECT backend_id, sum(size)::bigint AS bytes FROM done GROUP BY backend_id)
    SELECT coalesce(jsonb_agg(jsonb_build_array(backend_id, 0, -bytes, 0, 0, 0)), '[]')
    INTO moved FROM freed;
    FOR r IN SELECT x FROM jsonb_array_elements(j->'reports') x WHERE x->>1 <> 'done' LOOP
        CASE r->>1
        WHEN 'first_pass' THEN
            UPDATE cleanup_queue SET first_pass = true, grace = false, claim = NULL, attempts = 0,
                not_before = (r->>2)::bigint
            WHERE id = (r->>0)::bigint;
        WHEN 'retry' THEN
            -- A mere delay is no attempt.
            UPDATE cleanup_queue SET claim = NULL, grace = false, not_before = (r->>2)::bigint,
                attempts = attempts + CASE WHEN r->>3 IS NULL THEN 0 ELSE 1 END,
                last_error = coalesce(r->>3, last_error)
            WHERE id = (r->>0)::bigint;
        WHEN 'dead' THEN
            WITH gone AS (DELETE FROM cleanup_queue WHERE id = (r->>0)::bigint RETURNING *)
            INSERT INTO cleanup_dlq
            SELECT id, copy_id, blob_id, kind, backend_id, backend_key, backend_version,
                backend_upload, size, reason, unsettled, first_pass, attempts + 1, created, p_now,
                r->>3
            FROM gone;
        END CASE;
    END LOOP;
    RETURN jsonb_build_object('v', 'done', 'd', moved);
END
$$;

-- Ends the read grace of a backend's rows: room is needed.
CREATE FUNCTION s3o_hasten_cleanup(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    hastened bigint;
BEGIN
    UPDATE cleanup_queue SET not_before = p_now, grace = false
    WHERE id IN (
        SELECT id FROM cleanup_queue WHERE backend_id = (j->>'backend')::bigint AND grace
            AND claim IS NULL AND not_before > p_now
        ORDER BY id FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS hastened = ROW_COUNT;
    RETURN jsonb_build_object('v', 'count', 'n', hastened);
END
$$;

-- The claims of an instance begin here. 2^43 epochs, which are milliseconds, last until the year 2248.
CREATE FUNCTION s3o_claimant(p_instance integer) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT p_instance * 8796093022208
$$;

-- Makes the rows due that an instance claimed, in whatever life of it, and did not settle.
CREATE FUNCTION s3o_release_cleanup(p_instance integer, p_now bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    released bigint;
BEGIN
    UPDATE cleanup_queue SET claim = NULL, not_before = least(not_before, p_now)
    WHERE id IN (
        SELECT id FROM cleanup_queue
        WHERE claim >= s3o_claimant(p_instance) AND claim < s3o_claimant(p_instance + 1)
        ORDER BY id FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS released = ROW_COUNT;
    RETURN released;
END
$$;

-- === names, operators' decisions ===

CREATE FUNCTION s3o_bucket(p_name text) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_array(bucket_id, name, created, owner) FROM buckets WHERE name = p_name
$$;

-- The configuration's buckets: made where they are missing, taken over where a client made them.
CREATE FUNCTION s3o_ensure_buckets(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    wanted text;
    found_all jsonb := '[]';
BEGIN
    FOR wanted IN SELECT * FROM jsonb_array_elements_text(j->'names') LOOP
        UPDATE buckets SET owner = 'config' WHERE name = wanted AND owner <> 'config';
        INSERT INTO buckets (name, state, owner, created) VALUES (wanted, 'active', 'config', p_now)
        ON CONFLICT (name) DO NOTHING;
        found_all := found_all || jsonb_build_array(s3o_bucket(wanted));
    END LOOP;
    RETURN jsonb_build_object('v', 'buckets', 'buckets', found_all);
END
$$;

CREATE FUNCTION s3o_create_bucket(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    made boolean;
BEGIN
    INSERT INTO buckets (name, state, owner, created)
    VALUES (j->>'name', 'active', 'catalogue', p_now) ON CONFLICT (name) DO NOTHING;
    made := FOUND;
    RETURN jsonb_build_object('v', CASE WHEN made THEN 'created' ELSE 'exists' END,
        'bucket', s3o_bucket(j->>'name'));
END
$$;

-- Removes a client's bucket that holds nothing. Writes that are under way find it gone.
CREATE FUNCTION s3o_remove_bucket(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_bucket bigint := (j->>'bucket')::bigint;
    whose text;
BEGIN
    SELECT owner INTO whose FROM buckets WHERE bucket_id = p_bucket;
    IF NOT FOUND THEN
        RETURN '{"v": "absent"}';
    ELSIF whose <> 'catalogue' THEN
        RETURN '{"v": "not_ours"}';
    END IF;
    PERFORM 1 WHERE EXISTS (SELECT 1 FROM objects WHERE bucket_id = p_bucket)
        OR EXISTS (SELECT 1 FROM multipart_uploads WHERE bucket_id = p_bucket AND ended IS NULL);
    IF FOUND THEN
        RETURN '{"v": "not_empty"}';
    END IF;
    DELETE FROM bucket_slots WHERE bucket_id = p_bucket;
    DELETE FROM buckets WHERE bucket_id = p_bucket;
    RETURN '{"v": "gone"}';
END
$$;

-- All backends, with the number of rows that name each.
CREATE FUNCTION s3o_backends() RETURNS SETOF jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_array(b.backend_id, b.name, b.state, b.mark, b.capabilities,
        (SELECT coalesce(sum(locations), 0) FROM backend_slots s WHERE s.backend_id = b.backend_id)
        + (SELECT count(*) FROM cleanup_queue q WHERE q.backend_id = b.backend_id)
        + (SELECT count(*) FROM cleanup_dlq d WHERE d.backend_id = b.backend_id)
        + (SELECT count(*) FROM multipart_legs l WHERE l.backend_id = b.backend_id)
        + (SELECT count(*) FROM multipart_part_copies p JOIN multipart_uploads u USING (upload_id)
           WHERE p.backend_id = b.backend_id AND u.ended IS NULL)
        + (SELECT count(*) FROM multipart_claims c JOIN multipart_uploads u USING (upload_id)
           WHERE c.backend_id = b.backend_id AND u.ended IS NULL)
        + (SELECT count(*) FROM write_intents i WHERE i.backend_id = b.backend_id))
    FROM backends b ORDER BY b.backend_id
$$;

CREATE FUNCTION s3o_ensure_backends(p_instance integer, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    all_rows jsonb;
BEGIN
    INSERT INTO backends (name, state)
    SELECT n.name, 'active' FROM jsonb_array_elements_text(j->'names') WITH ORDINALITY n (name, i)
    WHERE NOT EXISTS (SELECT 1 FROM backends b WHERE b.name = n.name)
    ORDER BY n.i ON CONFLICT (name) DO NOTHING;
    INSERT INTO backend_slots (backend_id, instance)
    SELECT backend_id, p_instance FROM backends ON CONFLICT DO NOTHING;
    SELECT jsonb_agg(b) INTO all_rows FROM s3o_backends() b;
    RETURN jsonb_build_object('v', 'backends', 'backends', coalesce(all_rows, '[]'));
END
$$;

CREATE FUNCTION s3o_known_backend(p_found boolean, j jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_found THEN '{"v": "done"}'
        ELSE s3o_damaged(format('there is no backend %s', j->>'backend')) END
$$;

CREATE FUNCTION s3o_add_usage(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO backend_usage AS u (backend_id, month, api_requests, egress_bytes, ingress_bytes)
    SELECT (r->>0)::bigint, r->>1, sum((r->>2)::bigint), sum((r->>3)::bigint), sum((r->>4)::bigint)
    FROM jsonb_array_elements(j->'rows') r GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (backend_id, month) DO UPDATE SET
        api_requests = u.api_requests + excluded.api_requests,
        egress_bytes = u.egress_bytes + excluded.egress_bytes,
        ingress_bytes = u.ingress_bytes + excluded.ingress_bytes;
    RETURN '{"v": "counted"}';
END
$$;

-- === multipart ===

-- Why a step that needs an open upload does not happen; NULL where it may.
CREATE FUNCTION s3o_not_open(p_upload uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    stage text;
BEGIN
    SELECT state INTO stage FROM multipart_uploads WHERE upload_id = p_upload;
    RETURN CASE coalesce(stage, 'gone')
        WHEN 'open' THEN NULL
        WHEN 'completing' THEN '{"v": "superseded"}'::jsonb
        ELSE '{"v": "no_upload"}'::jsonb
    END;
END
$$;

-- A draining backend takes no new legs.
CREATE FUNCTION s3o_insert_leg(p_upload uuid, l jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO multipart_legs (copy_id, upload_id, n, blob_id, backend_id, backend_key, state)
    SELECT (l->>0)::uuid, p_upload, 1 + coalesce(max(n), 0), (l->>1)::uuid, (l->>2)::bigint, l->>3,
        'creating'
    FROM multipart_legs WHERE upload_id = p_upload
$$;

CREATE FUNCTION s3o_accepts(p_backend bigint) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT 1 FROM backends WHERE backend_id = p_backend AND state = 'active')
$$;

CREATE FUNCTION s3o_create_upload(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_bucket bigint := (j->>'bucket')::bigint;
    open_count bigint;
BEGIN
    PERFORM 1 FROM buckets WHERE bucket_id = p_bucket;
    IF NOT FOUND THEN
        RETURN '{"v": "no_bucket"}';
    END IF;
    IF j->>'open_max' IS NOT NULL THEN
        SELECT count(*) INTO open_count FROM (SELECT 1 FROM multipart_uploads
            WHERE bucket_id = p_bucket AND ended IS NULL LIMIT (j->>'open_max')::bigint) u;
        IF open_count >= (j->>'open_max')::bigint THEN
            RETURN '{"v": "too_many"}';
        END IF;
    END IF;
    IF NOT s3o_accepts((j->'leg'->>2)::bigint) THEN
        RETURN '{"v": "no_room"}';
    END IF;
    INSERT INTO multipart_uploads (upload_id, bucket_id, key, state, content_type, headers, tags,
        checksum, created)
    VALUES ((j->>'upload')::uuid, p_bucket, j->>'key', 'open', j->>'content_type', j->>'headers',
        j->>'tags', j->>'checksum', (j->>'created')::bigint);
    PERFORM s3o_insert_leg((j->>'upload')::uuid, j->'leg');
    RETURN '{"v": "done"}';
END
$$;

CREATE FUNCTION s3o_add_leg(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    refused jsonb := s3o_not_open((j->>'upload')::uuid);
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    IF NOT s3o_accepts((j->'leg'->>2)::bigint) THEN
        RETURN '{"v": "no_room"}';
    END IF;
    PERFORM s3o_insert_leg((j->>'upload')::uuid, j->'leg');
    RETURN '{"v": "done"}';
END
$$;

-- Records the backend's id. It is kept even if the upload is completing by now; after an abort the
-- queue row takes it over, so that the cleaner need not search for it.
CREATE FUNCTION s3o_open_leg(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_leg uuid := (j->>'leg')::uuid;
BEGIN
    UPDATE multipart_legs SET state = 'open', backend_upload = j->>'id'
    WHERE copy_id = p_leg AND upload_id = (j->>'upload')::uuid AND state = 'creating';
    IF FOUND THEN
        RETURN '{"v": "done"}';
    END IF;
    UPDATE cleanup_queue SET backend_upload = j->>'id'
    WHERE copy_id = p_leg AND kind = 'upload' AND backend_upload IS NULL;
    RETURN coalesce(s3o_not_open((j->>'upload')::uuid), '{"v": "superseded"}');
END
$$;

-- What the parts and claims of an upload hold on each leg. Unsettled: a claim is under way, or was
-- never answered, so more may appear.
CREATE FUNCTION s3o_held(p_upload uuid)
RETURNS TABLE (copy_id uuid, backend_id bigint, bytes bigint, unsettled boolean)
LANGUAGE sql VOLATILE AS $$
    SELECT h.copy_id, h.backend_id, sum(h.reserved)::bigint, bool_or(h.unsettled) FROM (
        SELECT c.copy_id, c.backend_id, c.reserved, false AS unsettled
        FROM multipart_part_copies c WHERE c.upload_id = p_upload
        UNION ALL
        SELECT c.copy_id, c.backend_id, c.reserved, true
        FROM multipart_claims c WHERE c.upload_id = p_upload) h
    GROUP BY h.copy_id, h.backend_id
$$;

-- Queues legs of an upload with the bytes that they hold, all but those that are named; the counters.
CREATE FUNCTION s3o_doom_legs(p_now bigint, p_upload uuid, p_but uuid[], p_reason text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    moved jsonb;
BEGIN
    WITH doomed AS (
        INSERT INTO cleanup_queue (copy_id, kind, backend_id, backend_key, backend_upload, size,
            reason, unsettled, created, not_before)
        SELECT l.copy_id, 'upload', l.backend_id, l.backend_key, l.backend_upload,
            coalesce(h.bytes, 0), p_reason, coalesce(h.unsettled, false) OR l.backend_upload IS NULL,
            p_now, p_now
        FROM multipart_legs l LEFT JOIN s3o_held(p_upload) h ON h.copy_id = l.copy_id
        WHERE l.upload_id = p_upload AND l.copy_id <> ALL (p_but) ORDER BY l.n
        RETURNING backend_id, size
    )
    SELECT jsonb_agg(jsonb_build_array(backend_id, 0, size, 0, 0, 0)) INTO moved FROM doomed;
    RETURN coalesce(moved, '[]');
END
$$;

-- Nothing is reserved for the upload any more; the counters. Its part rows go later.
CREATE FUNCTION s3o_end_upload(p_upload uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    moved jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_array(backend_id, 0, 0, -bytes, 0, 0)) INTO moved
    FROM s3o_held(p_upload);
    DELETE FROM multipart_legs WHERE upload_id = p_upload;
    RETURN coalesce(moved, '[]');
END
$$;

-- A leg that holds nothing goes into the queue.
CREATE FUNCTION s3o_drop_leg(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    p_leg uuid := (j->>'leg')::uuid;
    refused jsonb := s3o_not_open(p_upload);
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    PERFORM 1 FROM s3o_held(p_upload) h WHERE h.copy_id = p_leg;
    IF FOUND THEN
        RETURN '{"v": "superseded"}';
    END IF;
    WITH gone AS (
        DELETE FROM multipart_legs WHERE copy_id = p_leg AND upload_id = p_upload RETURNING *
    )
    INSERT INTO cleanup_queue (copy_id, kind, backend_id, backend_key, backend_upload, size, reason,
        unsettled, created, not_before)
    SELECT copy_id, 'upload', backend_id, backend_key, backend_upload, 0, 'abort_part_cleanup',
        backend_upload IS NULL, p_now, p_now
    FROM gone;
    RETURN CASE WHEN FOUND THEN '{"v": "done", "q": 1}'::jsonb ELSE '{"v": "superseded"}' END;
END
$$;

CREATE FUNCTION s3o_claim_part(p_instance integer, p_epoch bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    p_number integer := (j->>'number')::integer;
    p_backend bigint := (j->>'backend')::bigint;
    p_bytes bigint := (j->>'bytes')::bigint;
    refused jsonb := s3o_not_open(p_upload);
    lies_on bigint;
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    SELECT backend_id INTO lies_on FROM multipart_legs
    WHERE copy_id = (j->>'leg')::uuid AND upload_id = p_upload AND state = 'open';
    IF NOT FOUND THEN
        RETURN '{"v": "superseded"}';
    ELSIF lies_on <> p_backend THEN
        RETURN s3o_damaged('refused a part whose room is on another backend');
    END IF;
    UPDATE multipart_claims SET superseded = true
    WHERE upload_id = p_upload AND number = p_number;
    INSERT INTO multipart_claims (attempt, upload_id, number, copy_id, backend_id, reserved,
        instance, epoch)
    VALUES ((j->>'attempt')::uuid, p_upload, p_number, (j->>'leg')::uuid, p_backend, p_bytes,
        p_instance, p_epoch);
    RETURN jsonb_build_object('v', 'done',
        'd', jsonb_build_array(jsonb_build_array(p_backend, 0, 0, p_bytes, 0, -p_bytes)));
END
$$;

CREATE FUNCTION s3o_commit_part(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    p_size bigint := (j->>'size')::bigint;
    c multipart_claims%ROWTYPE;
    refused jsonb := s3o_not_open(p_upload);
    freed bigint;
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    SELECT * INTO c FROM multipart_claims
    WHERE attempt = (j->>'attempt')::uuid AND upload_id = p_upload;
    IF NOT FOUND OR c.superseded THEN
        RETURN '{"v": "superseded"}';
    END IF;
    IF (j->>'number')::integer <> c.number OR (j->>'leg')::uuid <> c.copy_id OR p_size > c.reserved
    THEN
        RETURN s3o_damaged(format('refused part %s: it is not as claimed', j->>'number'));
    END IF;
    -- What else the leg held under the number.
    WITH claims AS (
        DELETE FROM multipart_claims WHERE upload_id = p_upload AND number = c.number
            AND copy_id = c.copy_id RETURNING reserved
    ), copies AS (
        DELETE FROM multipart_part_copies WHERE upload_id = p_upload AND number = c.number
            AND copy_id = c.copy_id RETURNING reserved
    )
    SELECT coalesce(sum(reserved), 0) INTO freed
    FROM (SELECT reserved FROM claims UNION ALL SELECT reserved FROM copies) f;
    INSERT INTO multipart_parts (upload_id, number, attempt, size, etag, checksum, crc64,
        last_modified)
    VALUES (p_upload, c.number, c.attempt, p_size, j->>'etag', j->>'checksum', (j->>'crc')::bigint,
        (j->>'modified')::bigint)
    ON CONFLICT (upload_id, number) DO UPDATE SET attempt = excluded.attempt, size = excluded.size,
        etag = excluded.etag, checksum = excluded.checksum, crc64 = excluded.crc64,
        last_modified = excluded.last_modified, missing = false;
    INSERT INTO multipart_part_copies (upload_id, number, copy_id, attempt, backend_id, reserved,
        etag, crc64)
    VALUES (p_upload, c.number, c.copy_id, c.attempt, c.backend_id, p_size, j->>'backend_etag',
        (j->>'backend_crc')::bigint);
    RETURN jsonb_build_object('v', 'done',
        'd', jsonb_build_array(jsonb_build_array(c.backend_id, 0, 0, p_size - freed, 0, 0)));
END
$$;

-- The claim had no effect. Older ones that it superseded stay as they are: their outcome is unknown.
CREATE FUNCTION s3o_withdraw_part(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    moved jsonb;
BEGIN
    -- The bytes of an upload that has ended are counted elsewhere already.
    PERFORM 1 FROM multipart_uploads
    WHERE upload_id = (j->>'upload')::uuid AND state IN ('open', 'completing');
    IF FOUND THEN
        DELETE FROM multipart_claims
        WHERE attempt = (j->>'attempt')::uuid AND upload_id = (j->>'upload')::uuid
        RETURNING jsonb_build_array(backend_id, 0, 0, -reserved, 0, 0) INTO moved;
    END IF;
    RETURN jsonb_build_object('v', 'done',
        'd', CASE WHEN moved IS NULL THEN '[]' ELSE jsonb_build_array(moved) END);
END
$$;

-- Freezes the part list. Claims of other instances that are under way keep it from freezing; those of
-- this one are known to the caller.
CREATE FUNCTION s3o_freeze(p_instance integer, p_epoch bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    stage text;
    changed integer;
BEGIN
    SELECT state INTO stage FROM multipart_uploads WHERE upload_id = p_upload;
    IF NOT FOUND OR stage = 'aborting' THEN
        RETURN '{"v": "no_upload"}';
    ELSIF stage <> 'open' THEN
        RETURN '{"v": "not_open"}';
    END IF;
    PERFORM 1 FROM multipart_claims c JOIN instances i ON i.instance = c.instance
    WHERE c.upload_id = p_upload AND c.under_way AND c.instance <> p_instance
        AND i.live AND i.epoch = c.epoch;
    IF FOUND OR (j->>'busy')::boolean THEN
        RETURN '{"v": "busy"}';
    END IF;
    SELECT (w.x->>0)::integer INTO changed
    FROM jsonb_array_elements(j->'parts') WITH ORDINALITY w (x, i)
    WHERE NOT EXISTS (SELECT 1 FROM multipart_parts p WHERE p.upload_id = p_upload
        AND p.number = (w.x->>0)::integer AND p.attempt = (w.x->>1)::uuid AND NOT p.missing)
    ORDER BY w.i LIMIT 1;
    IF FOUND THEN
        RETURN jsonb_build_object('v', 'part_changed', 'number', changed);
    END IF;
    UPDATE multipart_uploads SET state = 'completing', frozen = decode(j->>'frozen', 'hex'),
        precondition = j->>'if', driver = p_instance, driver_epoch = p_epoch
    WHERE upload_id = p_upload;
    DELETE FROM multipart_overtaken WHERE upload_id = p_upload;
    RETURN '{"v": "frozen"}';
END
$$;

-- Takes over the completion of an upload whose driver is gone. Two that call a backend for the same
-- upload would each take the other's success for a failure.
CREATE FUNCTION s3o_drive(p_instance integer, p_epoch bigint, j jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE multipart_uploads u SET driver = p_instance, driver_epoch = p_epoch
    WHERE upload_id = (j->>'upload')::uuid AND state = 'completing'
        AND ((driver = p_instance AND driver_epoch = p_epoch)
            OR NOT EXISTS (SELECT 1 FROM instances i
                WHERE i.instance = u.driver AND i.epoch = u.driver_epoch AND i.live));
    RETURN jsonb_build_object('v', CASE WHEN FOUND THEN 'done' ELSE 'superseded' END);
END
$$;

-- Why a step that needs an upload which this instance completes does not happen; NULL where it may.
CREATE FUNCTION s3o_not_completing(p_upload uuid, p_instance integer, p_epoch bigint)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    u multipart_uploads%ROWTYPE;
BEGIN
    SELECT * INTO u FROM multipart_uploads WHERE upload_id = p_upload;
    IF NOT FOUND OR u.state IN ('completed', 'aborting') THEN
        RETURN '{"v": "no_upload"}';
    ELSIF u.state = 'open' OR u.driver <> p_instance OR u.driver_epoch <> p_epoch THEN
        RETURN '{"v": "superseded"}';
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION s3o_thaw(p_instance integer, p_epoch bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    refused jsonb := s3o_not_completing(p_upload, p_instance, p_epoch);
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    UPDATE multipart_uploads SET state = 'open', frozen = NULL, precondition = NULL,
        driver = NULL, driver_epoch = NULL
    WHERE upload_id = p_upload;
    DELETE FROM multipart_overtaken WHERE upload_id = p_upload;
    -- A leg that lost its parts: they are no longer shown, but whatever it holds stays reserved.
    UPDATE multipart_parts p SET missing = true
    FROM multipart_part_copies c
    WHERE p.upload_id = p_upload AND c.upload_id = p_upload AND c.copy_id = (j->>'missing')::uuid
        AND p.attempt = c.attempt;
    RETURN '{"v": "done"}';
END
$$;

CREATE FUNCTION s3o_complete_leg(p_instance integer, p_epoch bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    refused jsonb := s3o_not_completing(p_upload, p_instance, p_epoch);
BEGIN
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    UPDATE multipart_legs SET state = 'completed', size = (j->>'size')::bigint, etag = j->>'etag',
        backend_version = j->>'version', crc64 = (j->>'crc')::bigint
    WHERE copy_id = (j->>'leg')::uuid AND upload_id = p_upload AND state <> 'creating';
    RETURN jsonb_build_object('v', CASE WHEN FOUND THEN 'done' ELSE 'superseded' END);
END
$$;

CREATE FUNCTION s3o_complete_upload(p_instance integer, p_epoch bigint, p_now bigint,
    p_grace bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    places jsonb;
    named uuid[];
    what text;
    verdict jsonb;
    doomed jsonb;
    moved jsonb;
    overtaken boolean;
BEGIN
    IF s3o_not_completing(p_upload, p_instance, p_epoch) IS NOT NULL THEN
        RETURN '{"v": "gone"}';
    END IF;
    overtaken := EXISTS (SELECT 1 FROM multipart_overtaken WHERE upload_id = p_upload);
    IF overtaken AND j ? 'if' AND j->'if' <> 'null' THEN
        RETURN '{"v": "precondition"}';
    END IF;
    SELECT jsonb_object_agg(l.copy_id,
        jsonb_build_array(l.backend_id, l.backend_key, coalesce(h.bytes, 0), 0))
    INTO places
    FROM multipart_legs l LEFT JOIN s3o_held(p_upload) h ON h.copy_id = l.copy_id
    WHERE l.upload_id = p_upload AND l.state = 'completed';
    SELECT format('refused copy %s: it is of another blob', k->>'copy') INTO what
    FROM jsonb_array_elements(j->'blobs') b, jsonb_array_elements(b->'copies') k
    JOIN multipart_legs l ON l.copy_id = (k->>'copy')::uuid
    WHERE l.upload_id = p_upload AND l.blob_id <> (b->>'blob')::uuid;
    IF FOUND THEN
        RETURN s3o_damaged(what);
    END IF;
    IF overtaken THEN
        -- As if it had been completed and overwritten at once: nothing but its own bytes is touched.
        verdict := '{"v": "overtaken", "d": []}';
    ELSE
        verdict := s3o_put(p_now, p_grace, j, coalesce(places, '{}'));
        IF verdict->>'v' <> 'committed' THEN
            RETURN verdict;
        END IF;
        SELECT array_agg((k->>'copy')::uuid) INTO named
        FROM jsonb_array_elements(j->'blobs') b, jsonb_array_elements(b->'copies') k;
    END IF;
    doomed := s3o_doom_legs(p_now, p_upload, coalesce(named, '{}'), 'complete_part_cleanup');
    moved := doomed || s3o_end_upload(p_upload);
    UPDATE multipart_uploads SET state = 'completed', ended = p_now,
        version_id = (j->>'version')::uuid, etag = j->>'etag',
        final_checksum = j->'meta'->>'checksum', frozen = NULL
    WHERE upload_id = p_upload;
    DELETE FROM multipart_overtaken WHERE upload_id = p_upload;
    RETURN verdict || jsonb_build_object('d', (verdict->'d') || moved,
        'q', jsonb_array_length(doomed));
END
$$;

CREATE FUNCTION s3o_abort_upload(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_upload uuid := (j->>'upload')::uuid;
    stage text;
    refused jsonb;
    doomed jsonb;
BEGIN
    SELECT state INTO stage FROM multipart_uploads
    WHERE upload_id = p_upload AND bucket_id = (j->>'bucket')::bigint AND key = j->>'key';
    IF NOT FOUND THEN
        RETURN '{"v": "no_upload"}';
    ELSIF stage = 'aborting' THEN
        -- Again: it has what it asks for.
        RETURN '{"v": "done", "d": []}';
    END IF;
    refused := s3o_not_open(p_upload);
    IF refused IS NOT NULL THEN
        RETURN refused;
    END IF;
    doomed := s3o_doom_legs(p_now, p_upload, '{}', 'abort_part_cleanup');
    UPDATE multipart_uploads SET state = 'aborting', ended = p_now WHERE upload_id = p_upload;
    RETURN jsonb_build_object('v', 'done', 'd', doomed || s3o_end_upload(p_upload),
        'q', jsonb_array_length(doomed));
END
$$;

-- Ends every unfinished upload and leaves its bytes alone: a restored catalogue does not know whether
-- they became an object.
CREATE FUNCTION s3o_forget_pending(p_now bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one uuid;
    ended_count bigint := 0;
    moved jsonb := '[]';
BEGIN
    FOR one IN SELECT upload_id FROM multipart_uploads WHERE ended IS NULL LOOP
        moved := moved || s3o_end_upload(one);
        UPDATE multipart_uploads SET state = 'aborting', ended = p_now WHERE upload_id = one;
        ended_count := ended_count + 1;
    END LOOP;
    DELETE FROM multipart_overtaken;
    RETURN jsonb_build_object('v', 'count', 'n', ended_count, 'd', moved);
END
$$;

-- Removes rows of parts whose upload has ended, a batch of them; zero when nothing is left to do.
CREATE FUNCTION s3o_purge_parts(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    most bigint := (j->>'rows')::bigint;
    room bigint := most;
    u record;
    n bigint;
BEGIN
    FOR u IN SELECT upload_id, state FROM multipart_uploads WHERE ended IS NOT NULL AND NOT purged
        LIMIT (j->>'uploads')::bigint
    LOOP
        DELETE FROM multipart_claims WHERE attempt IN (
            SELECT attempt FROM multipart_claims WHERE upload_id = u.upload_id LIMIT room);
        GET DIAGNOSTICS n = ROW_COUNT;
        room := room - n;
        DELETE FROM multipart_part_copies WHERE upload_id = u.upload_id AND (number, copy_id) IN (
            SELECT number, copy_id FROM multipart_part_copies WHERE upload_id = u.upload_id
            LIMIT room);
        GET DIAGNOSTICS n = ROW_COUNT;
        room := room - n;
        DELETE FROM multipart_parts WHERE upload_id = u.upload_id AND number IN (
            SELECT number FROM multipart_parts WHERE upload_id = u.upload_id LIMIT room);
        GET DIAGNOSTICS n = ROW_COUNT;
        room := room - n;
        EXIT WHEN room <= 0;
        -- A commit beside a thaw may have left one.
        DELETE FROM multipart_overtaken WHERE upload_id = u.upload_id;
        -- A completed upload answers retries for a while, an aborted one a second abort; of the latter
        -- nothing but its name is needed.
        IF u.state = 'aborting' THEN
            UPDATE multipart_uploads SET purged = true, content_type = NULL, headers = NULL,
                tags = NULL, frozen = NULL, precondition = NULL
            WHERE upload_id = u.upload_id;
        ELSE
            UPDATE multipart_uploads SET purged = true WHERE upload_id = u.upload_id;
        END IF;
        room := room - 1;
        EXIT WHEN room <= 0;
    END LOOP;
    RETURN jsonb_build_object('v', 'count', 'n', most - room);
END
$$;

CREATE FUNCTION s3o_forget_uploads(j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    old bigint;
    surplus bigint;
BEGIN
    DELETE FROM multipart_uploads WHERE upload_id IN (
        SELECT upload_id FROM multipart_uploads
        WHERE ended IS NOT NULL AND ended < (j->>'before')::bigint AND purged
        ORDER BY ended LIMIT (j->>'max')::bigint);
    GET DIAGNOSTICS old = ROW_COUNT;
    DELETE FROM multipart_uploads WHERE upload_id IN (
        SELECT upload_id FROM multipart_uploads
        WHERE state = 'aborting' AND purged
        ORDER BY ended DESC LIMIT (j->>'max')::bigint - old OFFSET (j->>'aborts')::bigint);
    GET DIAGNOSTICS surplus = ROW_COUNT;
    RETURN jsonb_build_object('v', 'count', 'n', old + surplus);
END
$$;

-- === room ===

-- Leases room of a backend to this instance; its caller holds the lock of the backend's room. What all
-- slots count and have leased never exceeds the limit. Too little: the wish is noted, so that others
-- give back what they do not use.
CREATE FUNCTION s3o_lease_room(p_instance integer, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    p_backend bigint := (j->>'backend')::bigint;
    wanted bigint := (j->>'wanted')::bigint;
    chunk bigint := (j->>'chunk')::bigint;
    taken bigint;
    others bigint;
    free bigint;
    granted bigint;
BEGIN
    IF NOT s3o_accepts(p_backend) THEN
        RETURN '{"v": "no_room", "others": 0}';
    END IF;
    SELECT coalesce(sum(used + orphan + reserved_parts + room_left), 0),
        coalesce(sum(room_left) FILTER (WHERE instance <> p_instance), 0)
    INTO taken, others FROM backend_slots WHERE backend_id = p_backend;
    SELECT greatest(others - coalesce(sum(reserved), 0), 0) INTO others FROM write_intents
    WHERE backend_id = p_backend AND instance <> p_instance;
    free := CASE WHEN j->>'limit' IS NULL THEN wanted + chunk * 16
        ELSE greatest((j->>'limit')::bigint - taken, 0) END;
    IF free < wanted THEN
        UPDATE backend_slots SET room_wanted = wanted
        WHERE backend_id = p_backend AND instance = p_instance;
        RETURN jsonb_build_object('v', 'no_room', 'others', others);
    END IF;
    granted := greatest(wanted, least(chunk, free / 16));
    INSERT INTO backend_slots AS s (backend_id, instance, room_left)
    VALUES (p_backend, p_instance, granted)
    ON CONFLICT (backend_id, instance) DO UPDATE
        SET room_left = s.room_left + granted, room_wanted = 0;
    RETURN jsonb_build_object('v', 'leased', 'bytes', granted);
END
$$;

-- Gives leased room back that nothing uses.
CREATE FUNCTION s3o_return_room(p_instance integer, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    UPDATE backend_slots SET room_left = room_left - (j->>'bytes')::bigint,
        room_wanted = CASE WHEN (j->>'satisfied')::boolean THEN 0 ELSE room_wanted END
    WHERE backend_id = (j->>'backend')::bigint AND instance = p_instance;
    RETURN '{"v": "done"}';
END
$$;

-- === instances ===

-- Takes background work, or goes on with it. Who holds it and is buried, or is fenced, does no more of
-- it: whatever it would write goes through a batch, which is refused.
CREATE FUNCTION s3o_lease_worker(p_instance integer, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO worker_leases AS held (name, owner, epoch, expires)
    VALUES (j->>'name', p_instance, 1, s3o_clock() + (j->>'lasts')::bigint)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires,
        epoch = held.epoch + (held.owner IS DISTINCT FROM excluded.owner)::integer
    WHERE NOT held.paused
        AND (held.owner IS NULL OR held.owner = excluded.owner OR held.expires <= s3o_clock());
    RETURN jsonb_build_object('v', CASE WHEN FOUND THEN 'granted' ELSE 'held' END);
END
$$;

-- Background work that an instance held is anybody's again.
CREATE FUNCTION s3o_release_workers(p_instance integer) RETURNS void LANGUAGE sql AS $$
    UPDATE worker_leases SET owner = NULL, expires = 0 WHERE owner = p_instance
$$;

-- Buries an instance that has not shown itself for a whole lease: its intents become rows of the
-- cleanup queue, its room returns. From here on whatever it sends is refused.
CREATE FUNCTION s3o_bury(p_now bigint, j jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    dead integer := (j->>'instance')::integer;
    given bigint;
    moved jsonb;
BEGIN
    -- Who is in the middle of a batch is alive.
    PERFORM 1 FROM instances WHERE instance = dead AND live
        AND heartbeat < s3o_clock() - (j->>'lease')::bigint FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN '{"v": "count", "n": 0}';
    END IF;
    UPDATE instances SET epoch = epoch + 1, live = false, verdicts = NULL WHERE instance = dead;
    WITH gone AS (
        DELETE FROM write_intents WHERE instance = dead
        RETURNING copy_id, blob_id, backend_id, backend_key, reserved
    ), queued AS (
        INSERT INTO cleanup_queue (copy_id, blob_id, kind, backend_id, backend_key, size, reason,
            unsettled, created, not_before)
        SELECT copy_id, blob_id, 'object', backend_id, backend_key, reserved, 'intent_abandoned',
            true, p_now, p_now
        FROM gone
    )
    SELECT count(*), jsonb_agg(jsonb_build_array(backend_id, 0, reserved, 0, 0, 0))
    INTO given, moved FROM gone;
    UPDATE multipart_claims SET under_way = false WHERE instance = dead AND under_way;
    PERFORM s3o_release_cleanup(dead, p_now);
    PERFORM s3o_release_workers(dead);
    UPDATE backend_slots SET room_left = 0, room_wanted = 0 WHERE instance = dead;
    RETURN jsonb_build_object('v', 'count', 'n', given, 'd', coalesce(moved, '[]'));
END
$$;

-- Begins the recovery state. The intents are those of another time: what they announced may have become
-- an object since, so nobody may ever give them up for deletion. Who opened one meanwhile finds it
-- gone, and its client tries again. `p_known` tells a restore that is known from one that is suspected;
-- the former takes the place of the latter, never the other way round.
CREATE FUNCTION s3o_enter_recovery(p_reason text, p_known boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE catalogue SET
        recovery = CASE WHEN p_known AND NOT restored THEN p_reason ELSE coalesce(recovery, p_reason) END,
        restored = restored OR p_known;
    DELETE FROM write_intents;
END
$$;

-- Takes a number for a process: that of an instance that is gone, with its counters, its room and the
-- intents that nobody settled, or a new one. Answers with number and epoch. A process that found the
-- database in an earlier state says why the recovery state begins, in the same step.
--
-- An epoch is a millisecond of the clock, or the one behind the last: a database that was restored does
-- not give an epoch again that it gave before, and so does not take one instance for another.
CREATE FUNCTION s3o_register(p_name text, p_lease bigint, p_now bigint, p_restored text)
RETURNS TABLE (number integer, term bigint)
LANGUAGE plpgsql AS $$
DECLARE
    mine integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('s3-orchestrator registers', 0));
    IF p_restored IS NOT NULL THEN
        PERFORM s3o_enter_recovery(p_restored, true);
    END IF;
    SELECT instance INTO mine FROM instances
    WHERE NOT live OR heartbeat < s3o_clock() - p_lease
    ORDER BY instance LIMIT 1 FOR UPDATE;
    IF NOT FOUND THEN
        SELECT coalesce(max(instance), 0) + 1 INTO mine FROM instances;
        INSERT INTO instances (instance, epoch, name, live, heartbeat)
        VALUES (mine, s3o_clock(), p_name, true, s3o_clock());
    ELSE
        UPDATE instances SET epoch = greatest(epoch + 1, s3o_clock()), name = p_name,
            live = true, heartbeat = s3o_clock(), batch_seq = 0, verdicts = NULL
        WHERE instance = mine;
    END IF;
    UPDATE write_intents SET epoch = i.epoch FROM instances i
    WHERE i.instance = mine AND write_intents.instance = mine;
    UPDATE multipart_claims SET under_way = false WHERE instance = mine AND under_way;
    UPDATE multipart_uploads u SET driver_epoch = i.epoch FROM instances i
    WHERE i.instance = mine AND u.driver = mine AND u.state = 'completing';
    PERFORM s3o_release_cleanup(mine, p_now);
    PERFORM s3o_release_workers(mine);
    INSERT INTO backend_slots (backend_id, instance) SELECT backend_id, mine FROM backends
    ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT instance, epoch FROM instances WHERE instance = mine;
END
$$;

-- Says goodbye: what was leased and is not under an intent returns at once, and the number is free.
CREATE FUNCTION s3o_leave(p_instance integer, p_epoch bigint, p_now bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM instances WHERE instance = p_instance AND epoch = p_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE backend_slots s SET room_wanted = 0, room_left = coalesce((
        SELECT sum(reserved) FROM write_intents i
        WHERE i.instance = p_instance AND i.backend_id = s.backend_id), 0)
    WHERE s.instance = p_instance;
    UPDATE multipart_claims SET under_way = false WHERE instance = p_instance AND under_way;
    PERFORM s3o_release_cleanup(p_instance, p_now);
    PERFORM s3o_release_workers(p_instance);
    -- Who left intents behind is buried by the next who looks, which makes cleanup rows of them.
    UPDATE instances SET heartbeat = 0,
        live = EXISTS (SELECT 1 FROM write_intents WHERE instance = p_instance)
    WHERE instance = p_instance;
END
$$;

-- === the batch ===

CREATE FUNCTION s3o_job(p_instance integer, p_epoch bigint, p_now bigint, p_grace bigint, j jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    marked bigint;
BEGIN
    CASE j->>'k'
    WHEN 'commit' THEN RETURN s3o_commit(p_instance, p_now, p_grace, j);
    WHEN 'remove' THEN RETURN s3o_remove(p_now, p_grace, j);
    WHEN 'claim_part' THEN RETURN s3o_claim_part(p_instance, p_epoch, j);
    WHEN 'commit_part' THEN RETURN s3o_commit_part(j);
    WHEN 'claim_cleanup' THEN RETURN s3o_claim_cleanup(s3o_claimant(p_instance) + p_epoch, p_now, j);
    WHEN 'report_cleanup' THEN RETURN s3o_report_cleanup(p_now, j);
    WHEN 'give_up' THEN RETURN s3o_give_up(p_instance, p_now, j);
    WHEN 'withdraw' THEN
        DELETE FROM write_intents WHERE instance = p_instance
            AND copy_id IN (SELECT c::uuid FROM jsonb_array_elements_text(j->'copies') c);
        RETURN '{"v": "done"}';
    WHEN 'lease_worker' THEN RETURN s3o_lease_worker(p_instance, j);
    WHEN 'lease_room' THEN RETURN s3o_lease_room(p_instance, j);
    WHEN 'return_room' THEN RETURN s3o_return_room(p_instance, j);
    WHEN 'add_usage' THEN RETURN s3o_add_usage(j);
    WHEN 'retag' THEN RETURN s3o_retag(j);
    WHEN 'mark_copy' THEN
        UPDATE object_locations SET state = j->>'state',
            verified = coalesce((j->>'verified')::bigint, verified)
        WHERE copy_id = (j->>'copy')::uuid AND (state <> 'corrupt' OR j->>'state' = 'good');
        RETURN '{"v": "done"}';
    WHEN 'adopt' THEN RETURN s3o_adopt(p_now, p_grace, j);
    WHEN 'hasten_cleanup' THEN RETURN s3o_hasten_cleanup(p_now, j);
    WHEN 'release_cleanup' THEN
        RETURN jsonb_build_object('v', 'count', 'n', s3o_release_cleanup(p_instance, p_now));
    WHEN 'create_upload' THEN RETURN s3o_create_upload(j);
    WHEN 'add_leg' THEN RETURN s3o_add_leg(j);
    WHEN 'open_leg' THEN RETURN s3o_open_leg(j);
    WHEN 'drop_leg' THEN RETURN s3o_drop_leg(p_now, j);
    WHEN 'withdraw_part' THEN RETURN s3o_withdraw_part(j);
    WHEN 'freeze' THEN RETURN s3o_freeze(p_instance, p_epoch, j);
    WHEN 'complete_leg' THEN RETURN s3o_complete_leg(p_instance, p_epoch, j);
    WHEN 'thaw' THEN RETURN s3o_thaw(p_instance, p_epoch, j);
    WHEN 'complete_upload' THEN
        RETURN s3o_complete_upload(p_instance, p_epoch, p_now, p_grace, j);
    WHEN 'drive' THEN RETURN s3o_drive(p_instance, p_epoch, j);
    WHEN 'abort_upload' THEN RETURN s3o_abort_upload(p_now, j);
    WHEN 'forget_pending' THEN RETURN s3o_forget_pending(p_now);
    WHEN 'purge_parts' THEN RETURN s3o_purge_parts(j);
    WHEN 'forget_uploads' THEN RETURN s3o_forget_uploads(j);
    WHEN 'bury' THEN RETURN s3o_bury(p_now, j);
    WHEN 'enter_recovery' THEN
        PERFORM s3o_enter_recovery(j->>'reason', (j->>'known')::boolean);
        RETURN '{"v": "done"}';
    WHEN 'leave_recovery' THEN
        UPDATE catalogue SET recovery = NULL, restored = false;
        RETURN '{"v": "done"}';
    WHEN 'ensure_buckets' THEN RETURN s3o_ensure_buckets(p_now, j);
    WHEN 'create_bucket' THEN RETURN s3o_create_bucket(p_now, j);
    WHEN 'remove_bucket' THEN RETURN s3o_remove_bucket(j);
    WHEN 'ensure_backends' THEN RETURN s3o_ensure_backends(p_instance, j);
    WHEN 'save_capabilities' THEN
        UPDATE backends SET capabilities = j->>'found' WHERE backend_id = (j->>'backend')::bigint;
        RETURN s3o_known_backend(FOUND, j);
    WHEN 'set_state' THEN
        UPDATE backends SET state = j->>'state', epoch = epoch + 1
        WHERE backend_id = (j->>'backend')::bigint;
        RETURN s3o_known_backend(FOUND, j);
    WHEN 'advance_mark' THEN
        UPDATE backends SET mark = greatest(mark, (j->>'past')::bigint) + 1
        WHERE backend_id = (j->>'backend')::bigint RETURNING mark INTO marked;
        IF NOT FOUND THEN
            RETURN s3o_known_backend(false, j);
        END IF;
        RETURN jsonb_build_object('v', 'mark', 'mark', marked);
    WHEN 'audit' THEN
        RETURN jsonb_build_object('v', 'slots', 'slots', (
            SELECT coalesce(jsonb_agg(jsonb_build_array(backend_id, used, orphan, reserved_parts,
                room_left)), '[]')
            FROM backend_slots WHERE instance = p_instance));
    WHEN 'beat' THEN
        RETURN '{"v": "done"}';
    END CASE;
END
$$;

-- Applies a batch, or tells again what became of it. The answer is an object with one of
--   verdicts  one per job, in order
--   fenced    this instance was buried
--   lost      the catalogue does not know this instance, or another past of it: it was restored
CREATE FUNCTION s3o_batch(p_instance integer, p_epoch bigint, p_seq bigint, p_now bigint,
    p_grace bigint, p_locks bigint[], p_shared boolean[], p_ended uuid[], p_jobs jsonb)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    me instances%ROWTYPE;
    answers jsonb[] := '{}';
    j jsonb;
    answer text;
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    SELECT * INTO me FROM instances WHERE instance = p_instance FOR NO KEY UPDATE;
    -- Epochs and batches of one history only grow. A burial adds one to the epoch and leaves the batches;
    -- whoever takes the number next begins both anew.
    IF NOT FOUND OR me.epoch < p_epoch
            OR (me.epoch = p_epoch + 1 AND NOT me.live AND me.batch_seq < p_seq - 1) THEN
        RETURN '{"lost": true}';
    ELSIF me.epoch <> p_epoch THEN
        RETURN '{"fenced": true}';
    ELSIF me.batch_seq = p_seq THEN
        RETURN me.verdicts;
    ELSIF me.batch_seq <> p_seq - 1 THEN
        RETURN '{"lost": true}';
    END IF;
    -- Sorted by the caller, so that no two batches wait for each other.
    FOR i IN 1..cardinality(p_locks) LOOP
        IF p_shared[i] THEN
            PERFORM pg_advisory_xact_lock_shared(p_locks[i]);
        ELSE
            PERFORM pg_advisory_xact_lock(p_locks[i]);
        END IF;
    END LOOP;
    IF cardinality(p_ended) > 0 THEN
        UPDATE multipart_claims SET under_way = false WHERE attempt = ANY (p_ended);
    END IF;
    FOR j IN SELECT * FROM jsonb_array_elements(p_jobs) LOOP
        CASE j->>'k'
        WHEN 'commits' THEN
            answers := answers || s3o_commit_all(p_instance, p_now, p_grace, j->'jobs');
        WHEN 'removals' THEN
            answers := answers || s3o_remove_all(p_now, p_grace, j->'jobs');
        ELSE
            answers := array_append(answers, s3o_job(p_instance, p_epoch, p_now, p_grace, j));
        END CASE;
    END LOOP;
    INSERT INTO backend_slots (backend_id, instance)
    SELECT DISTINCT (d->>0)::bigint, p_instance FROM unnest(answers) a, jsonb_array_elements(a->'d') d
    ON CONFLICT DO NOTHING;
    UPDATE backend_slots s SET used = used + m.m_used, orphan = orphan + m.m_orphan,
        reserved_parts = reserved_parts + m.m_parts, locations = locations + m.m_locations,
        room_left = room_left + m.m_room
    FROM (SELECT (d->>0)::bigint AS backend, sum((d->>1)::bigint) AS m_used,
            sum((d->>2)::bigint) AS m_orphan, sum((d->>3)::bigint) AS m_parts,
            sum((d->>4)::bigint) AS m_locations, sum((d->>5)::bigint) AS m_room
        FROM unnest(answers) a, jsonb_array_elements(a->'d') d GROUP BY 1) m
    WHERE s.backend_id = m.backend AND s.instance = p_instance;
    INSERT INTO bucket_slots AS s (bucket_id, instance, objects, bytes)
    SELECT (a->'b'->>0)::bigint, p_instance, sum((a->'b'->>1)::bigint), sum((a->'b'->>2)::bigint)
    FROM unnest(answers) a WHERE jsonb_typeof(a->'b') = 'array' GROUP BY 1
    ON CONFLICT (bucket_id, instance) DO UPDATE SET objects = s.objects + excluded.objects,
        bytes = s.bytes + excluded.bytes;
    answer := jsonb_build_object('verdicts', to_jsonb(answers))::text;
    UPDATE instances SET batch_seq = p_seq, verdicts = answer, heartbeat = s3o_clock()
    WHERE instance = p_instance;
    RETURN answer;
END
$$;

-- Makes intents durable. Answers with one flag per
-- intent, whether its backend accepts bytes; an empty list where this instance was buried.
CREATE FUNCTION s3o_open_intents(p_instance integer, p_epoch bigint, p_locks bigint[],
    p_intents jsonb)
RETURNS boolean[] LANGUAGE plpgsql AS $$
DECLARE
    accepted boolean[];
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    FOR i IN 1..cardinality(p_locks) LOOP
        PERFORM pg_advisory_xact_lock_shared(p_locks[i]);
    END LOOP;
    PERFORM 1 FROM instances WHERE instance = p_instance AND epoch = p_epoch AND live;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    SELECT array_agg(coalesce(b.state = 'active', false) ORDER BY w.i) INTO accepted
    FROM jsonb_array_elements(p_intents) WITH ORDINALITY w (x, i)
    LEFT JOIN backends b ON b.backend_id = (w.x->>2)::bigint;
    -- Sent again after a lost answer, they are there already.
    INSERT INTO write_intents (copy_id, blob_id, backend_id, backend_key, reserved, instance, epoch)
    SELECT (w.x->>0)::uuid, (w.x->>1)::uuid, (w.x->>2)::bigint, w.x->>3, (w.x->>4)::bigint,
        p_instance, p_epoch
    FROM jsonb_array_elements(p_intents) WITH ORDINALITY w (x, i) WHERE accepted[w.i]
    ON CONFLICT (copy_id) DO NOTHING;
    RETURN accepted;
END
$$;
