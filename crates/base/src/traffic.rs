//! What a provider bills by, besides stored bytes.

/// Calls and bytes between this program and a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests that were sent, whatever became of them.
    pub requests: u64,
    /// Bytes of objects that the provider gave.
    pub egress: u64,
    /// Bytes of objects that the provider was given.
    pub ingress: u64,
}

impl Traffic {
    /// Nothing at all.
    pub const NONE: Self = Self {
        requests: 0,
        egress: 0,
        ingress: 0,
    };

    /// Calls without bytes of objects.
    pub const fn requests(requests: u64) -> Self {
        Self {
            requests,
            ..Self::NONE
        }
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            egress: self.egress.saturating_add(other.egress),
            ingress: self.ingress.saturating_add(other.ingress),
        }
    }

    /// What is left without the other; nothing falls below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            egress: self.egress.saturating_sub(other.egress),
            ingress: self.ingress.saturating_sub(other.ingress),
        }
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            requests: self.requests.min(other.requests),
            egress: self.egress.min(other.egress),
            ingress: self.ingress.min(other.ingress),
        }
    }
}
