-- Lookups that are more than a statement, as functions: a session plans what is in them once, also
-- where its statements have no names (behind a pooler). STABLE: all of a function sees one snapshot.
-- Each of them is meant for an index, whatever the statistics of a small table suggest.

-- The current versions of keys; n is the place of the key in the question.
CREATE FUNCTION s3o_objects(p_buckets bigint[], p_keys text[])
RETURNS TABLE (n bigint, version_id uuid, seq bigint, size bigint, etag text, last_modified bigint,
    content_type text, headers text, checksum text, parts integer, tags text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN QUERY
    SELECT w.n, o.version_id, o.seq, o.size, o.etag, o.last_modified, o.content_type, m.headers,
        m.checksum, o.parts, m.tags
    FROM unnest(p_buckets, p_keys) WITH ORDINALITY w (bucket, key, n)
    JOIN objects o ON o.bucket_id = w.bucket AND o.key = w.key
    LEFT JOIN object_meta m ON m.version_id = o.version_id;
END
$$;

-- The same, with the places of the bytes: [[blob, offset, length, size of the blob, crc,
-- [[copy, backend, key, version, etag, crc, bytes, state], …]], …], good copies first.
CREATE FUNCTION s3o_plans(p_buckets bigint[], p_keys text[])
RETURNS TABLE (n bigint, version_id uuid, seq bigint, size bigint, etag text, last_modified bigint,
    content_type text, headers text, checksum text, parts integer, tags text, extents text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    RETURN QUERY
    SELECT w.n, o.version_id, o.seq, o.size, o.etag, o.last_modified, o.content_type, m.headers,
        m.checksum, o.parts, m.tags, (
            SELECT coalesce(jsonb_agg(jsonb_build_array(e.blob, e.at, e.length, b.stored_size,
                b.crc64, (
                    SELECT coalesce(jsonb_agg(jsonb_build_array(l.copy_id, l.backend_id,
                        l.backend_key, l.backend_version, l.etag, l.crc64, l.stored_bytes, l.state)
                        ORDER BY l.state, l.copy_id), '[]')
                    FROM object_locations l WHERE l.blob_id = e.blob)) ORDER BY e.i), '[]')
            FROM (
                SELECT 0 AS i, o.blob_id AS blob, 0::bigint AS at, o.size AS length
                WHERE o.blob_id IS NOT NULL
                UNION ALL
                SELECT x.n, x.blob_id, x.blob_offset, x.length FROM object_extents x
                WHERE o.blob_id IS NULL AND x.version_id = o.version_id
            ) e LEFT JOIN blobs b ON b.blob_id = e.blob)::text
    FROM unnest(p_buckets, p_keys) WITH ORDINALITY w (bucket, key, n)
    JOIN objects o ON o.bucket_id = w.bucket AND o.key = w.key
    LEFT JOIN object_meta m ON m.version_id = o.version_id;
END
$$;

-- The smallest text behind all texts that begin so; NULL where there is none.
CREATE FUNCTION s3o_successor(p text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    head text := p;
    last integer;
BEGIN
    WHILE head <> '' LOOP
        last := ascii(right(head, 1));
        head := left(head, -1);
        IF last < 1114111 THEN
            -- Behind U+D7FF come the surrogates, which no text holds.
            RETURN head || chr(CASE last WHEN 55295 THEN 57344 ELSE last + 1 END);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- A page of keys: keyset and skip-scan. Behind the first key of a common prefix the walk goes on at the
-- prefix's successor, so a page costs a seek per prefix and a step per key, however many keys a prefix
-- holds. Begins at p_from, or behind it; one row more than p_max means that more follow.
CREATE FUNCTION s3o_list(p_bucket bigint, p_prefix text, p_delimiter text, p_from text,
    p_behind boolean, p_max integer)
RETURNS TABLE (key text, is_prefix boolean, size bigint, etag text, last_modified bigint,
    checksum text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
DECLARE
    place text := p_from;
    behind boolean := p_behind;
    stop text := s3o_successor(p_prefix);
    left_over integer := p_max + 1;
    cut integer;
    o record;
    again boolean;
BEGIN
    LOOP
        again := false;
        FOR o IN
            SELECT t.key, t.size, t.etag, t.last_modified, t.checksum FROM objects t
            WHERE t.bucket_id = p_bucket AND t.key >= place AND (NOT behind OR t.key <> place)
                AND (stop IS NULL OR t.key < stop)
            ORDER BY t.key LIMIT left_over
        LOOP
            cut := CASE WHEN p_delimiter IS NULL THEN 0
                ELSE position(p_delimiter IN substr(o.key, length(p_prefix) + 1)) END;
            left_over := left_over - 1;
            IF cut = 0 THEN
                key := o.key; is_prefix := false; size := o.size; etag := o.etag;
                last_modified := o.last_modified; checksum := o.checksum;
                RETURN NEXT;
                CONTINUE;
            END IF;
            key := left(o.key, length(p_prefix) + cut + length(p_delimiter) - 1);
            is_prefix := true; size := NULL; etag := NULL; last_modified := NULL; checksum := NULL;
            RETURN NEXT;
            place := s3o_successor(key);
            behind := false;
            again := place IS NOT NULL;
            EXIT;
        END LOOP;
        EXIT WHEN NOT again OR left_over <= 0;
    END LOOP;
END
$$;

-- A page of uploads that have not ended, by key and id, in the same way; behind (p_from, p_upload).
CREATE FUNCTION s3o_list_uploads(p_bucket bigint, p_prefix text, p_delimiter text, p_from text,
    p_upload uuid, p_max integer)
RETURNS TABLE (key text, is_prefix boolean, upload_id uuid, created bigint, checksum text)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
DECLARE
    place text := p_from;
    past uuid := p_upload;
    stop text := s3o_successor(p_prefix);
    left_over integer := p_max + 1;
    cut integer;
    u record;
    again boolean;
BEGIN
    LOOP
        again := false;
        FOR u IN
            SELECT t.key, t.upload_id, t.created, t.checksum FROM multipart_uploads t
            WHERE t.ended IS NULL AND t.bucket_id = p_bucket
                AND (t.key, t.upload_id) > (place, past) AND (stop IS NULL OR t.key < stop)
            ORDER BY t.key, t.upload_id LIMIT left_over
        LOOP
            cut := CASE WHEN p_delimiter IS NULL THEN 0
                ELSE position(p_delimiter IN substr(u.key, length(p_prefix) + 1)) END;
            left_over := left_over - 1;
            IF cut = 0 THEN
                key := u.key; is_prefix := false; upload_id := u.upload_id; created := u.created;
                checksum := u.checksum;
                RETURN NEXT;
                CONTINUE;
            END IF;
            key := left(u.key, length(p_prefix) + cut + length(p_delimiter) - 1);
            is_prefix := true; upload_id := NULL; created := NULL; checksum := NULL;
            RETURN NEXT;
            place := s3o_successor(key);
            past := '00000000-0000-0000-0000-000000000000';
            again := place IS NOT NULL;
            EXIT;
        END LOOP;
        EXIT WHEN NOT again OR left_over <= 0;
    END LOOP;
END
$$;

-- Uploads as their readers see them: one by its id, or those of a state that were created before a
-- moment, the oldest first. Legs: [[copy, blob, backend, key, state, id, size, etag, version, crc], …].
CREATE FUNCTION s3o_uploads(p_upload uuid, p_state text, p_before bigint, p_max integer)
RETURNS TABLE (upload_id uuid, bucket_id bigint, key text, content_type text, headers text,
    checksum text, created bigint, state text, frozen bytea, precondition text, version_id uuid,
    etag text, final_checksum text, tags text, legs text)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT u.upload_id, u.bucket_id, u.key, u.content_type, u.headers, u.checksum, u.created,
        u.state, u.frozen, u.precondition, u.version_id, u.etag, u.final_checksum, u.tags, (
            SELECT coalesce(jsonb_agg(jsonb_build_array(l.copy_id, l.blob_id, l.backend_id,
                l.backend_key, l.state, l.backend_upload, l.size, l.etag, l.backend_version,
                l.crc64) ORDER BY l.n), '[]')
            FROM multipart_legs l WHERE l.upload_id = u.upload_id)::text
    FROM multipart_uploads u
    WHERE (p_upload IS NOT NULL AND u.upload_id = p_upload AND u.state <> 'aborting')
        OR (p_upload IS NULL AND u.ended IS NULL AND u.state = p_state AND u.created < p_before)
    ORDER BY u.created LIMIT p_max;
END
$$;

-- What is known of a copy id, or of a key on a backend: the table that has it.
CREATE FUNCTION s3o_known(p_copy uuid, p_backend bigint, p_key text)
RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_in text;
BEGIN
    IF p_copy IS NOT NULL THEN
        SELECT t.place INTO found_in FROM (
            SELECT 'location' AS place FROM object_locations WHERE copy_id = p_copy
            UNION ALL SELECT 'cleanup' FROM cleanup_queue WHERE copy_id = p_copy
            UNION ALL SELECT 'cleanup' FROM cleanup_dlq WHERE copy_id = p_copy
            UNION ALL SELECT 'pending' FROM multipart_legs WHERE copy_id = p_copy
            UNION ALL SELECT 'pending' FROM multipart_claims WHERE attempt = p_copy
            UNION ALL SELECT 'pending' FROM write_intents WHERE copy_id = p_copy) t LIMIT 1;
    ELSE
        SELECT t.place INTO found_in FROM (
            SELECT 'location' AS place FROM object_locations
                WHERE backend_id = p_backend AND backend_key = p_key
            UNION ALL SELECT 'cleanup' FROM cleanup_queue
                WHERE backend_id = p_backend AND backend_key = p_key
            UNION ALL SELECT 'cleanup' FROM cleanup_dlq
                WHERE backend_id = p_backend AND backend_key = p_key
            UNION ALL SELECT 'pending' FROM multipart_legs
                WHERE backend_id = p_backend AND backend_key = p_key
            UNION ALL SELECT 'pending' FROM write_intents
                WHERE backend_id = p_backend AND backend_key = p_key) t LIMIT 1;
    END IF;
    RETURN found_in;
END
$$;
