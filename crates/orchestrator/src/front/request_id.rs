//! The id of a request, in every reply, every log line and every audit line; and that of the server,
//! in every reply.

use std::fmt;
use std::sync::Arc;

use base::Ids;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};

/// The longest id that is taken over from a client.
const ID_CHARS_MAX: usize = 64;

/// Hexadecimal digits, at least one.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RequestId(Box<str>);

impl RequestId {
    /// The id that the client (or a proxy before us) gave in `X-Request-Id`, or a new one.
    pub(super) fn of(headers: &HeaderMap, ids: &Ids) -> Self {
        let given = headers
            .get("x-request-id")
            .and_then(|value| value.to_str().ok());
        match given {
            Some(text) if is_id(text) => Self(text.into()),
            Some(_) | None => Self(ids.uuid().simple().to_string().into()),
        }
    }

    /// The digits.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits for a header.
    pub(super) fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("hexadecimal digits are a header value")
    }
}

/// The name of a running server, which tells nothing of it: opaque text, another one after each start.
#[derive(Debug, Clone, Default)]
pub(super) struct HostId(Arc<str>);

impl HostId {
    /// A new one.
    pub(super) fn draw(ids: &Ids) -> Self {
        Self(STANDARD.encode(ids.uuid().as_bytes()).into())
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The text for a header.
    pub(super) fn to_header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("base64 is a header value")
    }
}

fn is_id(text: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use base::ManualClock;

    use super::*;

    #[test]
    fn only_short_hexadecimal_ids_are_taken_over() {
        let ids = Ids::seeded(Arc::new(ManualClock::at(0)), 1);
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(text).unwrap());
            RequestId::of(&headers, &ids)
        };
        assert_eq!(of("aB12").as_str(), "aB12");
        assert_eq!(of(&"f".repeat(64)).as_str(), "f".repeat(64));
        for text in ["", "g", "a b", &"f".repeat(65)] {
            let drawn = of(text);
            assert_ne!(drawn.as_str(), text);
            assert!(is_id(drawn.as_str()));
        }
        assert!(is_id(RequestId::of(&HeaderMap::new(), &ids).as_str()));
    }
}
