//! The headers that an object keeps.

/// The limit on the user metadata of one object: names without prefix plus values, in bytes.
///
/// Source: Amazon S3 user guide, "Working with object metadata".
pub const USER_METADATA_BYTES_MAX: usize = 2048;

/// The headers that are stored with an object and returned with it, byte for byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectHeaders {
    /// `Content-Type`; reads answer `binary/octet-stream` where it is absent.
    pub content_type: Option<String>,
    /// `Cache-Control`
    pub cache_control: Option<String>,
    /// `Content-Disposition`
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without the `aws-chunked` that belongs to the transfer.
    pub content_encoding: Option<String>,
    /// `Content-Language`
    pub content_language: Option<String>,
    /// `Expires`, as the client wrote it.
    pub expires: Option<String>,
    /// `x-amz-meta-*`: lower-case names without the prefix, in the order they came in.
    pub user: Vec<(String, String)>,
}

impl ObjectHeaders {
    /// Bytes that count against [`USER_METADATA_BYTES_MAX`].
    pub fn user_bytes(&self) -> usize {
        self.user
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// The standard headers that are set, under the names that HTTP gives them.
    pub fn standard(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("content-type", &self.content_type),
            ("cache-control", &self.cache_control),
            ("content-disposition", &self.content_disposition),
            ("content-encoding", &self.content_encoding),
            ("content-language", &self.content_language),
            ("expires", &self.expires),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}
