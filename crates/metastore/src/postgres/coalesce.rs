//! Lookups of single keys, several in one flight where several wait.
//!
//! A lookup joins only a flight that has not been sent: one that is under way may have taken its snapshot
//! before a write that the newcomer knows to be done.

use std::sync::Arc;

use base::ObjectKey;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::DatabaseError;
use crate::fault::Fault;
use crate::model::BucketId;
use crate::postgres::connect::Pool;
use crate::values::small;

/// Keys in one flight.
const KEYS_MAX: usize = 64;
/// Flights at the same time.
const FLIGHTS: usize = 4;
/// Lookups that wait for a flight; a caller waits for a place.
const QUEUE_MAX: usize = 4_096;

/// A question for one key.
struct Question {
    bucket: i64,
    key: String,
    reply: oneshot::Sender<Result<Option<Row>, Fault>>,
}

/// Asks one function for many keys.
#[derive(Clone)]
pub(super) struct Coalescer {
    queue: mpsc::Sender<Question>,
}

impl Coalescer {
    /// `sql` takes buckets and keys, and answers with rows that begin with the place of the key.
    pub(super) fn start(pool: &Pool, sql: &'static str) -> Self {
        let (queue, questions) = mpsc::channel(QUEUE_MAX);
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..FLIGHTS {
            drop(tokio::spawn(serve(
                pool.clone(),
                sql,
                Arc::clone(&questions),
            )));
        }
        Self { queue }
    }

    /// The row of a key; it was read after this was called.
    pub(super) async fn ask(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
    ) -> Result<Option<Row>, Fault> {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            bucket: bucket.0,
            key: key.as_str().to_owned(),
            reply,
        };
        let closed = || Fault::Known(crate::Error::Closed);
        self.queue.send(question).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

async fn serve(pool: Pool, sql: &'static str, questions: Arc<Mutex<mpsc::Receiver<Question>>>) {
    loop {
        let mut flight = Vec::new();
        // The lock is held while the first is waited for: whoever has it takes what waits.
        let taken = questions
            .lock()
            .await
            .recv_many(&mut flight, KEYS_MAX)
            .await;
        if taken == 0 {
            return;
        }
        flight.retain(|question| !question.reply.is_closed());
        if !flight.is_empty() {
            fly(&pool, sql, flight).await;
        }
    }
}

async fn fly(pool: &Pool, sql: &'static str, flight: Vec<Question>) {
    let buckets: Vec<i64> = flight.iter().map(|question| question.bucket).collect();
    let keys: Vec<&str> = flight
        .iter()
        .map(|question| question.key.as_str())
        .collect();
    let found = pool
        .query(
            sql,
            &[(&buckets, Type::INT8_ARRAY), (&keys, Type::TEXT_ARRAY)],
        )
        .await;
    match found {
        Ok(found) => {
            let mut answers: Vec<Option<Row>> = flight.iter().map(|_| None).collect();
            for row in found {
                // Places are counted from one.
                let place = small(&row, 0).map_or(0, |n| n as usize);
                if let Some(answer) = place.checked_sub(1).and_then(|n| answers.get_mut(n)) {
                    *answer = Some(row);
                }
            }
            for (question, answer) in flight.into_iter().zip(answers) {
                let _nobody_waits = question.reply.send(Ok(answer));
            }
        }
        Err(Fault::Postgres(DatabaseError::Postgres(error))) => {
            for question in flight {
                let again = DatabaseError::Postgres(Arc::clone(&error));
                let _nobody_waits = question.reply.send(Err(Fault::Postgres(again)));
            }
        }
        Err(Fault::Known(crate::Error::Closed)) => {
            for question in flight {
                let closed = Fault::Known(crate::Error::Closed);
                let _nobody_waits = question.reply.send(Err(closed));
            }
        }
        Err(fault) => {
            let words = fault.named("look objects up").to_string();
            for question in flight {
                let again = DatabaseError::Connection(words.clone());
                let _nobody_waits = question.reply.send(Err(Fault::Postgres(again)));
            }
        }
    }
}
