//! The signals that mean something to us.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that were asked for; from here on they do not end the process by themselves.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next SIGINT or SIGTERM.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The next SIGHUP, or a stop: whichever comes first.
    pub(super) async fn next(&mut self) -> OperatorSignal {
        tokio::select! {
            _ = self.interrupt.recv() => OperatorSignal::Stop,
            _ = self.terminate.recv() => OperatorSignal::Stop,
            _ = self.hangup.recv() => OperatorSignal::Reload,
        }
    }
}

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OperatorSignal {
    /// An orderly end.
    Stop,
    /// The files read again.
    Reload,
}
