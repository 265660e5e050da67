//! Taking turns on a thread.

use std::future::poll_fn;
use std::task::Poll;

/// Lets the other tasks run first that are ready on this thread. What they and we send then leaves in
/// one go, for a peer that is awake, instead of waking it for each.
pub async fn line_up() {
    let mut behind = false;
    poll_fn(|cx| match std::mem::replace(&mut behind, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn what_is_ready_runs_before_what_lined_up() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let tasks = ["a", "b"].map(|name| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                done.lock().push(("received", name));
                line_up().await;
                done.lock().push(("sent", name));
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let order = [
            ("received", "a"),
            ("received", "b"),
            ("sent", "a"),
            ("sent", "b"),
        ];
        assert_eq!(*done.lock(), order);
    }
}
