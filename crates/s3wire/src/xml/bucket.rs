//! The small documents about one bucket: `LocationConstraint`, `VersioningConfiguration`,
//! `CreateBucketConfiguration`.

use super::read::{RESPONSE_BYTES_MAX, XmlError, read_as};
use super::write::Writer;

/// The largest body of CreateBucket.
pub const CREATE_BUCKET_BYTES_MAX: usize = 16 << 10;

/// Whether a bucket keeps old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersioningStatus {
    /// It never did.
    Off,
    /// Every write and delete adds a version.
    Enabled,
    /// Versions from before are kept.
    Suspended,
}

/// The answer to GetBucketLocation; as in S3, `us-east-1` is the empty name.
pub fn print_location(region: &str) -> String {
    let mut writer = Writer::new("LocationConstraint");
    if region != "us-east-1" {
        writer.text(region);
    }
    writer.finish()
}

/// The answer to GetBucketVersioning.
pub fn print_versioning(status: VersioningStatus) -> String {
    let mut writer = Writer::new("VersioningConfiguration");
    match status {
        VersioningStatus::Off => {}
        VersioningStatus::Enabled => writer.element("Status", "Enabled"),
        VersioningStatus::Suspended => writer.element("Status", "Suspended"),
    }
    writer.finish()
}

/// Reads a backend's answer to GetBucketVersioning.
pub fn parse_versioning(document: &[u8]) -> Result<VersioningStatus, XmlError> {
    let node = read_as(document, "VersioningConfiguration", RESPONSE_BYTES_MAX)?;
    match node.filled("Status") {
        None => Ok(VersioningStatus::Off),
        Some("Enabled") => Ok(VersioningStatus::Enabled),
        Some("Suspended") => Ok(VersioningStatus::Suspended),
        // MinIO and others say so in words.
        Some("Off" | "Disabled" | "Unversioned") => Ok(VersioningStatus::Off),
        Some(_) => Err(XmlError::Invalid { element: "Status" }),
    }
}

/// What the body of CreateBucket asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketConfiguration {
    /// The region, where one is named.
    pub region: Option<String>,
    /// An element that asks for something which is not built.
    pub unsupported: Option<&'static str>,
}

/// Elements of CreateBucket that ask for something, unless they are empty: tags of the bucket, and
/// buckets of another kind.
const UNSUPPORTED: [&str; 3] = ["Tags", "Bucket", "Location"];

/// Reads the body of CreateBucket. An empty body asks for nothing.
pub fn parse_create_bucket(body: &[u8]) -> Result<BucketConfiguration, XmlError> {
    if body.is_empty() {
        return Ok(BucketConfiguration::default());
    }
    let node = read_as(body, "CreateBucketConfiguration", CREATE_BUCKET_BYTES_MAX)?;
    node.once(&["LocationConstraint"])?;
    let asks = |name: &&'static str| node.children(name).any(|child| !child.all().is_empty());
    Ok(BucketConfiguration {
        region: node.filled("LocationConstraint").map(str::to_owned),
        unsupported: UNSUPPORTED.iter().copied().find(asks),
    })
}
