//! Intents: a lane and a connection of their own, so that they never wait for a batch.
//!
//! One call makes a batch of them durable. Sent again it changes nothing, but only under the number that
//! it was sent under first: after a burial its intents may be rows of the cleanup queue.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_postgres::types::Type;

use crate::Error;
use crate::error::DatabaseError;
use crate::guard::{Intent, Unclaimed};
use crate::live::Live;
use crate::postgres::apply::{Failure, Identity, Line, Shared, kind};
use crate::postgres::encode::{self, Hold};
use crate::postgres::migrate::Registered;
use crate::settle::IntentItem;
use crate::writer::{Applier, Health, Queues};

const OPERATION: &str = "record an intent";
/// How often a batch is tried that others were in the way of.
const TRIES_MAX: u32 = 5;

/// Applies batches of intents.
pub(crate) struct IntentApplier {
    pub(crate) line: Line,
    pub(crate) identity: Arc<Identity>,
    pub(crate) live: Arc<Live>,
}

/// How a batch ended.
enum Ended {
    /// One flag per intent: whether it is durable.
    Flags(Vec<bool>),
    /// This instance was buried.
    Fenced,
    Failed(DatabaseError),
}

impl Applier for IntentApplier {
    type Item = IntentItem;

    async fn work(
        mut self,
        mut queues: Queues<IntentItem>,
        first: IntentItem,
    ) -> Option<(Self, Queues<IntentItem>, Health)> {
        let items = queues.gather(first, |_| 1);
        // What was reserved before this instance began again is not covered by anything.
        let (items, stale): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| item.room.is_held());
        for item in stale {
            refuse(item, no_room);
        }
        if items.is_empty() {
            return Some((self, queues, Health::Sound));
        }
        match self.run(&items).await {
            Ended::Flags(flags) => self.answer(items, &flags),
            Ended::Fenced => {
                let buried = |_: u64| Error::Unavailable {
                    operation: OPERATION,
                    source: DatabaseError::Connection("the lease of this instance expired".into()),
                };
                items.into_iter().for_each(|item| refuse(item, buried));
            }
            Ended::Failed(error) => {
                let shared = Shared::new(error);
                for item in items {
                    refuse(item, |_| shared.of(OPERATION));
                }
            }
        }
        Some((self, queues, Health::Sound))
    }

    async fn finish(self) {}
}

fn no_room(bytes: u64) -> Error {
    Error::NoRoom {
        wanted: base::ByteSize(bytes),
    }
}

/// Before the answer: who is refused may look at the room at once.
fn refuse(item: IntentItem, error: impl Fn(u64) -> Error) {
    let IntentItem { row, room, reply } = item;
    drop(room);
    let _caller_gone = reply.send(Err(error(row.bytes)));
}

impl IntentApplier {
    async fn run(&mut self, items: &[IntentItem]) -> Ended {
        let Registered { instance, epoch } = self.identity.get();
        let rows: Vec<Value> = items
            .iter()
            .map(|item| {
                json!([
                    encode::copy_uuid(item.row.copy).hyphenated().to_string(),
                    encode::blob_uuid(item.row.blob).hyphenated().to_string(),
                    item.row.backend.0,
                    item.row.key.as_str(),
                    item.row.bytes
                ])
            })
            .collect();
        let rows = Value::Array(rows).to_string();
        let mut locks = vec![(encode::of_instance(instance), Hold::Shared)];
        locks.extend(
            items
                .iter()
                .map(|item| (encode::of_accepting(item.row.backend), Hold::Shared)),
        );
        let (locks, _all_shared) = encode::sorted(locks);
        let mut failures = 0;
        loop {
            if let Err(error) = self.line.open().await {
                match self.line.unanswered(&error).await {
                    true => continue,
                    false => return Ended::Failed(error),
                }
            }
            let answer = self
                .line
                .session()
                .query(
                    "SELECT s3o_open_intents($1, $2, $3, $4::text::jsonb)",
                    &[
                        (&instance, Type::INT4),
                        (&epoch, Type::INT8),
                        (&locks, Type::INT8_ARRAY),
                        (&rows, Type::TEXT),
                    ],
                )
                .await;
            let error = match answer {
                Ok(rows) => {
                    self.line.answered();
                    let flags: Vec<bool> = rows
                        .first()
                        .and_then(|row| row.try_get(0).ok())
                        .unwrap_or_default();
                    return match flags.len() == items.len() {
                        true => Ended::Flags(flags),
                        false => Ended::Fenced,
                    };
                }
                Err(error) => error,
            };
            match kind(&error) {
                Failure::Way => {
                    if !self.line.unanswered(&error).await {
                        return Ended::Failed(error);
                    }
                }
                Failure::Passing if failures < TRIES_MAX => {
                    self.line.answered();
                    failures += 1;
                }
                Failure::Passing | Failure::Room | Failure::Data => return Ended::Failed(error),
            }
        }
    }

    fn answer(&self, items: Vec<IntentItem>, flags: &[bool]) {
        let (durable, refused): (Vec<_>, Vec<_>) =
            items.into_iter().zip(flags).partition(|(_, flag)| **flag);
        for (item, _) in refused {
            refuse(item, no_room);
        }
        let rows = durable
            .iter()
            .map(|(item, _)| (item.row.clone(), item.room.generation()));
        let opened = self.live.intents_opened(rows);
        for ((item, _), opened) in durable.into_iter().zip(opened) {
            if !opened {
                refuse(item, no_room);
                continue;
            }
            item.room.disarm();
            // A caller that is gone drops its intent here: abandoned, for the reaper.
            let intent = Intent::new(Arc::clone(&self.live), item.row);
            let _caller_gone = item.reply.send(Ok(Unclaimed::new(intent)));
        }
    }
}
