//! After a batch: memory follows rows, guards are settled, and then every caller may know.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::oneshot;

use crate::Result;
use crate::guard::{Intent, Reservation, Unclaimed};
use crate::job::{Answer, Held, Job};
use crate::live::{Effects, IntentRow, Live};
use crate::model::Catalogue;

/// A job with its guards and whoever waits for it.
pub(crate) struct Item<J = Box<Job>> {
    pub(crate) job: J,
    pub(crate) held: Held,
    pub(crate) reply: oneshot::Sender<(Result<Answer>, Held)>,
}

/// An intent that is to become durable.
pub(crate) struct IntentItem {
    pub(crate) row: IntentRow,
    pub(crate) room: Reservation,
    pub(crate) reply: oneshot::Sender<Result<Unclaimed>>,
}

/// What a batch changes in memory.
pub(crate) struct Settler {
    pub(crate) live: Arc<Live>,
    pub(crate) catalogue: Arc<RwLock<Catalogue>>,
}

impl Settler {
    /// Settles in memory first, in one step; then every caller may know.
    pub(crate) fn answer<J>(&self, items: Vec<Item<J>>, results: Vec<Result<(Answer, Effects)>>) {
        let effects = results.iter().flatten().map(|(_, effects)| effects);
        self.live.settle(effects.clone());
        for recovery in effects.filter_map(|effects| effects.recovery.as_ref()) {
            self.catalogue.write().change(recovery);
        }
        for (item, result) in items.into_iter().zip(results) {
            let (answer, effects) = match result {
                Ok((answer, effects)) => (Ok(answer), effects),
                Err(error) => (Err(error), Effects::default()),
            };
            let held = self.settled(item.held, &effects);
            // A caller that is gone drops its guards here: what is open is abandoned.
            let _caller_gone = item.reply.send((answer, held));
        }
    }

    /// Nothing of the batch happened: every caller gets its guards back, with an error of its own.
    pub(crate) fn refuse<J>(&self, items: Vec<Item<J>>, error: impl Fn(&J) -> crate::Error) {
        for item in items {
            let held = self.settled(item.held, &Effects::default());
            let _caller_gone = item.reply.send((Err(error(&item.job)), held));
        }
    }

    /// The guards that are still the caller's.
    fn settled(&self, held: Held, effects: &Effects) -> Held {
        match held {
            Held::Intents(intents) => {
                let (done, open): (Vec<_>, Vec<_>) = intents
                    .into_iter()
                    .partition(|intent| effects.settled.contains(&intent.copy()));
                done.into_iter().for_each(Intent::disarm);
                self.live.reopen(&open);
                Held::Intents(open)
            }
            Held::NewClaim(claim, room) if effects.room.is_some() => {
                room.disarm();
                Held::Claim(claim)
            }
            Held::Counts(counts) if effects.counted => {
                counts.landed();
                Held::Nothing
            }
            other => other,
        }
    }
}
