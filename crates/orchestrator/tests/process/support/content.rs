//! Known content as what a backend is sent and answers with.

use backend::{Body, Payload};
use futures_util::{StreamExt as _, stream};
pub(crate) use testbed::content::Content;

pub(crate) trait ContentExt {
    /// As a body that comes in pieces.
    fn streamed(self) -> Payload;

    /// Whether a body is this content, whole.
    ///
    /// # Errors
    /// What differs, or how the body ended.
    async fn check(self, body: Body) -> Result<(), String>;
}

impl ContentExt for Content {
    fn streamed(self) -> Payload {
        Payload::streamed(self.length, Box::pin(stream::iter(self.pieces(0).map(Ok))))
    }

    async fn check(self, mut body: Body) -> Result<(), String> {
        let mut offset = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| base::report(&error).to_string())?;
            if !self.has(offset, &piece) {
                return Err(format!("other bytes than expected at {offset}"));
            }
            offset += piece.len() as u64;
        }
        match offset == self.length {
            true => Ok(()),
            false => Err(format!("{offset} bytes instead of {}", self.length)),
        }
    }
}
