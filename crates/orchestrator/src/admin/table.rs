//! Every call of the admin API.

use http::Method;

use super::{AdminEntry, Endpoint, Param, ParamPlace};

/// Every call there is, in the order of the help and of the reference.
pub static ENTRIES: &[AdminEntry] = &[
    AdminEntry {
        endpoint: Endpoint::Status,
        method: Method::GET,
        path: "status",
        verb: "status",
        operation: "GetStatus",
        about: "Show the backends: how full they are, how they are, what this month has used",
        params: &[],
        answer: &[
            (
                "db_healthy",
                "Whether the catalogue answers. Where it does not, what only its rows tell is null.",
            ),
            ("db_error", "Why it does not; null while it does."),
            ("usage_period", "The month of the usage, UTC, as `YYYY-MM`."),
            (
                "recovery",
                "Why nothing may be deleted on backends (a restored catalogue); null otherwise.",
            ),
            ("backends[].name", "The backend."),
            ("backends[].healthy", "Whether it is in service."),
            (
                "backends[].out_of_service",
                "Why it is not; null while it is.",
            ),
            ("backends[].draining", "Whether it is being emptied."),
            ("backends[].bytes_used", "Bytes of objects on it."),
            ("backends[].bytes_limit", "Its quota in bytes; 0 is none."),
            (
                "backends[].orphan_bytes",
                "Bytes on it that wait for deletion.",
            ),
            (
                "backends[].reserved_bytes",
                "Bytes that writes and uploads under way hold there.",
            ),
            ("backends[].object_count", "Copies of objects on it."),
            ("backends[].api_requests", "Calls to it in the month."),
            (
                "backends[].egress_bytes",
                "Bytes read from it in the month.",
            ),
            (
                "backends[].ingress_bytes",
                "Bytes written to it in the month.",
            ),
        ],
    },
    AdminEntry {
        endpoint: Endpoint::ObjectLocations,
        method: Method::GET,
        path: "object-locations",
        verb: "object-locations",
        operation: "GetObjectLocations",
        about: "Show where the bytes of an object are",
        params: &[Param {
            name: "key",
            flag: "key",
            place: ParamPlace::Query,
            value: "BUCKET/KEY",
            about: "The bucket, a slash, and the key as clients know it",
        }],
        answer: &[
            ("key", "Bucket and key, as asked."),
            ("version_id", "The current version."),
            ("size_bytes", "Its size."),
            ("etag", "Its entity tag."),
            ("last_modified", "When it was written."),
            ("locations[].object_key", "The key of the object."),
            (
                "locations[].backend_name",
                "The backend that holds the copy.",
            ),
            ("locations[].backend_key", "The key there."),
            (
                "locations[].backend_version",
                "The version id there; null on buckets without versions.",
            ),
            (
                "locations[].copy_id",
                "The attempt that placed it; never used twice.",
            ),
            (
                "locations[].blob_id",
                "The bytes that it is a copy of: equal ids hold equal bytes.",
            ),
            ("locations[].size_bytes", "Bytes that it stores."),
            (
                "locations[].offset",
                "Where its bytes begin in the object, which may be spread over several.",
            ),
            (
                "locations[].length",
                "How many of its bytes the object has.",
            ),
            ("locations[].blob_offset", "Where they begin in the copy."),
            (
                "locations[].state",
                "`good`; `suspect` where the backend denied having it or was wrong once, `missing` where it denied \
                 it again, `corrupt` where its bytes were proven wrong.",
            ),
        ],
    },
    AdminEntry {
        endpoint: Endpoint::Workers,
        method: Method::GET,
        path: "workers",
        verb: "workers",
        operation: "ListWorkers",
        about: "Show the background workers and how they fare",
        params: &[],
        answer: &[
            ("workers[].name", "The worker."),
            (
                "workers[].last_success",
                "When a step last succeeded; null before the first.",
            ),
            (
                "workers[].last_failure",
                "When one last failed; null before the first.",
            ),
            ("workers[].last_error", "Why; null before the first."),
            ("workers[].consecutive_failures", "Failures in a row."),
            ("workers[].done", "Things that it settled since the start."),
            (
                "workers[].standby",
                "Whether another instance does its work at present.",
            ),
        ],
    },
    AdminEntry {
        endpoint: Endpoint::CleanupQueue,
        method: Method::GET,
        path: "cleanup-queue",
        verb: "cleanup-queue",
        operation: "GetCleanupQueue",
        about: "Show what waits for deletion on backends",
        params: &[],
        answer: &[
            ("depth", "Rows in the queue."),
            (
                "dead_letters",
                "Rows that failed too often and are not tried any more.",
            ),
            (
                "items[].id",
                "A row; at most 50 are shown, those that are due soonest.",
            ),
            ("items[].backend_name", "The backend that holds the bytes."),
            ("items[].object_key", "The key there."),
            (
                "items[].reason",
                "Why they are to go: the label `reason` of the metrics.",
            ),
            ("items[].attempts", "Attempts that failed."),
            (
                "items[].size_bytes",
                "Bytes that count as orphans until then.",
            ),
            ("items[].created_at", "When the row was queued."),
            ("items[].not_before", "When it is due, or due again."),
            (
                "items[].last_error",
                "What went wrong last; null if nothing did.",
            ),
        ],
    },
    AdminEntry {
        endpoint: Endpoint::Instances,
        method: Method::GET,
        path: "instances",
        verb: "instances",
        operation: "ListInstances",
        about: "Show the processes that share the catalogue",
        params: &[],
        answer: &[
            ("instances[].id", "The instance."),
            ("instances[].epoch", "How often it has started."),
            (
                "instances[].heartbeat",
                "Its last sign of life; over the embedded catalogue, its start.",
            ),
            ("instances[].this", "Whether it is the one that answers."),
        ],
    },
    AdminEntry {
        endpoint: Endpoint::LogLevel,
        method: Method::GET,
        path: "log-level",
        verb: "log-level",
        operation: "GetLogLevel",
        about: "Show the least severe level that is logged, or change it",
        params: &[],
        answer: &[("level", "`debug`, `info`, `warn` or `error`.")],
    },
    AdminEntry {
        endpoint: Endpoint::SetLogLevel,
        method: Method::PUT,
        path: "log-level",
        verb: "log-level",
        operation: "SetLogLevel",
        about: "Change the least severe level that is logged, until the next start or SIGHUP",
        params: &[Param {
            name: "level",
            flag: "set",
            place: ParamPlace::Body,
            value: "LEVEL",
            about: "Another level, until the next start or SIGHUP: debug, info, warn or error",
        }],
        answer: &[("level", "The level from now on.")],
    },
];
