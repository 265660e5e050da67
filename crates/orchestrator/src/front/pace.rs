//! How slow a client may be with the bytes of a body.
//!
//! Only the time counts in which we wait for the client. It may use up an allowance, which begins with a
//! grace and grows with every byte as long as that byte takes at the minimum rate; never beyond the
//! longest time without any progress. So one byte every few minutes holds nothing for long, and a client
//! that was quick may pause.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::MinRate;

/// What a client is held to in one direction.
#[derive(Debug, Clone, Copy)]
pub struct PaceRule {
    /// The longest time without progress.
    pub pause_max: Duration,
    /// Absent: pauses alone are limited.
    pub min_rate: Option<MinRate>,
}

impl PaceRule {
    fn begin(&self) -> Duration {
        match self.min_rate {
            Some(rate) => self.pause_max.min(rate.grace),
            None => self.pause_max,
        }
    }

    /// What is left of an allowance after waits, and after so many bytes.
    fn after(&self, allowance: Duration, waited: Duration, bytes: u64) -> Duration {
        let Some(rate) = self.min_rate else {
            return self.pause_max;
        };
        let left = allowance.saturating_sub(waited);
        let earned = Duration::from_secs(bytes / rate.bytes_per_second);
        let rest = (bytes % rate.bytes_per_second) as f64 / rate.bytes_per_second.get() as f64;
        let earned = earned.saturating_add(Duration::from_secs_f64(rest));
        self.pause_max.min(left.saturating_add(earned))
    }
}

/// The clock of one body, or of one connection's answers. It costs next to nothing while nobody waits.
#[derive(Debug)]
pub(super) struct Pace {
    rule: PaceRule,
    allowance: Duration,
    /// Moved since the allowance was last reckoned, which only a wait has to.
    moved: u64,
    waiting_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(rule: PaceRule) -> Self {
        Self {
            rule,
            allowance: rule.begin(),
            moved: 0,
            waiting_since: None,
            alarm: None,
        }
    }

    /// Begins anew, with the next body.
    pub(super) fn reset(&mut self) {
        self.allowance = self.rule.begin();
        self.moved = 0;
        self.waiting_since = None;
    }

    /// The client has moved bytes; or it was not waited for, and has moved none.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes as u64);
        if let Some(since) = self.waiting_since.take() {
            self.reckon(since.elapsed());
        }
    }

    fn reckon(&mut self, waited: Duration) {
        let bytes = std::mem::take(&mut self.moved);
        self.allowance = self.rule.after(self.allowance, waited, bytes);
    }

    /// The client is waited for: resolves when it has been too slow.
    pub(super) fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            self.reckon(Duration::ZERO);
            let now = Instant::now();
            self.waiting_since = Some(now);
            let end = now + self.allowance;
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(end),
                empty => *empty = Some(Box::pin(sleep_until(end))),
            }
        }
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::num::NonZeroU64;

    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rule() -> PaceRule {
        PaceRule {
            pause_max: SECOND * 300,
            min_rate: Some(MinRate {
                bytes_per_second: NonZeroU64::new(1024).unwrap(),
                grace: SECOND * 30,
            }),
        }
    }

    /// How long the client may be silent from now on.
    async fn silence(pace: &mut Pace) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| pace.poll_too_slow(cx)).await;
        begun.elapsed()
    }

    /// Waits for the client, which then moves some bytes; whether that was too slow.
    async fn wait(pace: &mut Pace, pause: Duration, bytes: usize) -> bool {
        let slow = timeout(pause, poll_fn(|cx| pace.poll_too_slow(cx))).await;
        pace.moved(bytes);
        slow.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_outlast_the_grace() {
        let mut pace = Pace::new(rule());
        let mut seconds = 0;
        while !wait(&mut pace, SECOND, 1).await {
            seconds += 1;
        }
        assert!((29..=31).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_the_minimum_rate_is_never_too_slow() {
        let mut pace = Pace::new(rule());
        for _ in 0..10_000 {
            assert!(!wait(&mut pace, SECOND * 10, 10 * 1024).await);
        }
        assert_eq!(silence(&mut pace).await, SECOND * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_quick_may_pause_but_not_for_longer_than_any_pause() {
        let mut pace = Pace::new(rule());
        pace.moved(60 * 1024);
        assert_eq!(silence(&mut pace).await, SECOND * 90);
        pace.reset();
        pace.moved(1 << 30);
        assert_eq!(silence(&mut pace).await, SECOND * 300);
        pace.reset();
        assert_eq!(silence(&mut pace).await, SECOND * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_minimum_rate_pauses_alone_count() {
        let mut pace = Pace::new(PaceRule {
            min_rate: None,
            ..rule()
        });
        for _ in 0..10 {
            assert!(!wait(&mut pace, SECOND * 299, 1).await);
        }
        assert_eq!(silence(&mut pace).await, SECOND * 300);
    }
}
