//! The order in which several backends' calls of the marker happen.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A schedule: each call of the marker waits for the turn of its player, and has the place to itself
/// until it ends. A player whose turns are used up calls when it wants.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Order>);

#[derive(Debug)]
struct Order {
    players: Mutex<VecDeque<u32>>,
    changed: Notify,
}

impl Turns {
    /// Players in the order of their calls.
    pub fn new(players: impl IntoIterator<Item = u32>) -> Self {
        Self(Arc::new(Order {
            players: Mutex::new(players.into_iter().collect()),
            changed: Notify::new(),
        }))
    }

    /// The player calls no more: nobody waits for its turns.
    pub fn leave(&self, player: u32) {
        self.0.players.lock().retain(|other| *other != player);
        self.0.changed.notify_waiters();
    }

    /// Waits for the player's turn, which lasts until the value is dropped.
    pub(super) async fn wait(&self, player: u32) -> Turn {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            let next = {
                let players = self.0.players.lock();
                players.contains(&player).then(|| players.front().copied())
            };
            match next {
                None => return Turn(None),
                Some(front) if front == Some(player) => return Turn(Some(Arc::clone(&self.0))),
                Some(_) => changed.await,
            }
        }
    }
}

/// A turn that is being used.
pub(super) struct Turn(Option<Arc<Order>>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(order) = &self.0 {
            order.players.lock().pop_front();
            order.changed.notify_waiters();
        }
    }
}
