//! What an instance among others does on its own: it gives signs of life, looks at what the others
//! count and want, gives back room that it does not need, and buries those that are silent.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base::report;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::types::Type;
use tracing::{debug, warn};

use crate::Error;
use crate::fault::Fault;
use crate::job::Answer;
use crate::ledger::Counters;
use crate::model::BackendId;
use crate::postgres::store::Shared;
use crate::postgres::work::Work;
use crate::values::{Cells, uint};

/// How often the others are looked at; so long does one wait at most that wants our room.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Signs of life within one lease.
const BEATS_PER_LEASE: u32 = 6;

/// Runs until the store is gone.
pub(super) async fn run(shared: Weak<Shared>, lease: Duration) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beat_every = lease / BEATS_PER_LEASE;
    let mut beaten = Instant::now();
    // Nobody is buried before we have seen the database for a whole lease: those who were cut off
    // from it with us get the time to come back.
    let mut seen_since = Instant::now();
    loop {
        looks.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.is_closed() {
            return;
        }
        if beaten.elapsed() >= beat_every {
            beaten = Instant::now();
            // The lane may be busy for long while the database is away; the next look does not wait.
            let beating = Arc::clone(&shared);
            drop(tokio::spawn(async move {
                let _the_next_one_follows = beating.run(Work::Beat).await;
            }));
        }
        match look(&shared).await {
            Ok(seen) => {
                for silent in seen {
                    if seen_since.elapsed() >= lease {
                        bury(&shared, silent, lease).await;
                    }
                }
            }
            Err(fault) => {
                seen_since = Instant::now();
                debug!(error = %report(&fault.named("look at the other instances")), "could not read the heartbeats of other instances");
            }
        }
    }
}

/// Looks at the others; the numbers of those that are silent.
async fn look(shared: &Shared) -> Result<Vec<i32>, Fault> {
    let this = shared.identity.get().instance;
    let lease = i64::try_from(shared.lease.as_millis()).unwrap_or(i64::MAX / 2);
    let rows = shared
        .pool
        .query(
            "SELECT b.backend_id, b.state = 'active', coalesce(sum(s.used), 0)::bigint,
                 coalesce(sum(s.orphan), 0)::bigint, coalesce(sum(s.reserved_parts), 0)::bigint,
                 coalesce(max(s.room_wanted), 0), (SELECT recovery FROM catalogue),
                 (SELECT restored FROM catalogue)
             FROM backends b
             LEFT JOIN backend_slots s ON s.backend_id = b.backend_id AND s.instance <> $1
             GROUP BY b.backend_id",
            &[(&this, Type::INT4)],
        )
        .await?;
    let mut seen = Vec::with_capacity(rows.len());
    let mut wanted = Vec::new();
    for row in &rows {
        let backend = BackendId(row.int(0)?);
        let others = Counters {
            used: row.int(2)?,
            orphan: row.int(3)?,
            parts: row.int(4)?,
        };
        seen.push((backend, others, row.flag(1)?));
        if uint(row, 5)? > 0 {
            wanted.push(backend);
        }
        shared.see_recovery(row.maybe_text(6)?, row.flag(7)?);
    }
    shared.live.see_others(&seen);
    for backend in wanted {
        return_room(shared, backend).await;
    }
    let silent = shared
        .pool
        .query(
            "SELECT instance FROM instances
             WHERE live AND instance <> $1 AND heartbeat < s3o_clock() - $2",
            &[(&this, Type::INT4), (&lease, Type::INT8)],
        )
        .await?;
    silent
        .iter()
        .map(|row| {
            i32::try_from(row.int(0)?).map_err(|_| Fault::damaged("the number of an instance"))
        })
        .collect()
}

/// Another instance would have to refuse bytes: it gets what is not used here.
async fn return_room(shared: &Shared, backend: BackendId) {
    let generation = shared.live.generation();
    let bytes = shared.live.take_unused(backend);
    if bytes == 0 {
        return;
    }
    let work = Work::ReturnRoom {
        backend,
        bytes,
        satisfied: false,
    };
    if let Err(error) = shared.run(work).await {
        match error {
            // It may have happened. What is not known to be ours is not given out; a new beginning
            // finds out.
            Error::Unavailable { .. } | Error::Closed => {}
            other => {
                shared.live.keep_unused(backend, bytes, generation);
                warn!(error = %report(&other), "could not return reserved quota");
            }
        }
    }
}

async fn bury(shared: &Shared, instance: i32, lease: Duration) {
    let work = Work::Bury {
        instance,
        lease_ms: i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2),
    };
    match shared.run(work).await {
        Ok(Answer::Count(intents)) => warn!(instance, intents, "expired instance fenced"),
        Ok(_) => {}
        Err(error) => {
            debug!(instance, error = %report(&error), "could not fence an expired instance")
        }
    }
}
