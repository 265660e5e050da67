//! Why a chunked body was refused.

use crate::{Error, ErrorCode};

/// Why a chunked body was refused. Nothing of it may be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The signature of a chunk is wrong.
    #[error("the signature of a chunk does not match")]
    ChunkSignatureMismatch,
    /// The signature of the trailer is wrong.
    #[error("the signature of the trailer does not match")]
    TrailerSignatureMismatch,
    /// The framing of a chunk breaks the grammar, or bytes follow the end.
    #[error("the framing of a chunk is malformed")]
    ChunkMalformed,
    /// The body ends after all its bytes, but before its last chunk has.
    #[error("the body ends before its last chunk")]
    ChunkCut,
    /// A signed chunk, or the line before a chunk, is longer than its limit.
    #[error("a chunk or its header line is too large")]
    ChunkTooLarge,
    /// The chunks hold more or fewer bytes than `x-amz-decoded-content-length` says.
    #[error("the number of bytes differs from x-amz-decoded-content-length")]
    DecodedLengthMismatch,
    /// The trailer breaks the grammar, lacks what was announced, or holds something else.
    #[error("the trailer is malformed or differs from x-amz-trailer")]
    TrailerMalformed,
    /// The body ends within the trailer.
    #[error("the body ends before its trailer")]
    TrailerCut,
}

impl Reject {
    /// The value of the `reason` label in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ChunkSignatureMismatch => "chunk_signature_mismatch",
            Self::TrailerSignatureMismatch => "trailer_signature_mismatch",
            Self::ChunkMalformed | Self::ChunkCut => "chunk_malformed",
            Self::ChunkTooLarge => "chunk_too_large",
            Self::DecodedLengthMismatch => "decoded_length_mismatch",
            Self::TrailerMalformed | Self::TrailerCut => "trailer_malformed",
        }
    }

    /// The S3 error that the client gets.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::ChunkSignatureMismatch | Self::TrailerSignatureMismatch => {
                ErrorCode::SignatureDoesNotMatch
            }
            Self::DecodedLengthMismatch => ErrorCode::IncompleteBody,
            Self::TrailerMalformed | Self::TrailerCut => ErrorCode::MalformedTrailer,
            Self::ChunkMalformed | Self::ChunkCut | Self::ChunkTooLarge => {
                ErrorCode::InvalidRequest
            }
        }
    }
}

impl From<Reject> for Error {
    fn from(reject: Reject) -> Self {
        match reject.code() {
            ErrorCode::InvalidRequest => Self::request(reject.to_string()),
            code => code.into(),
        }
    }
}
