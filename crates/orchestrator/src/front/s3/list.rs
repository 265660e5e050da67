//! ListObjects in its two versions, ListObjectVersions, and ListMultipartUploads.

use base::UploadId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine::catalogue::{
    ListEntry, ListQuery, ListStart, ListedObject, Listing, UploadEntry, UploadQuery,
};
use s3wire::headers::UploadChecksum;
use s3wire::xml::{
    NullVersionsPage, ObjectEntry, ObjectsPageV1, ObjectsPageV2, UploadEntry as ShownUpload,
    UploadsPage,
};
use s3wire::{
    Error, ErrorCode, ListObjectsV1, ListObjectsV2, ListUploads, ListVersions, NamedVersion,
};

use super::super::render::{Answer, Failure};
use super::Call;

/// The largest character, so often that nothing with the same beginning sorts behind it: a key has
/// at most 1,024 bytes, and this character takes four.
const BEHIND_EVERYTHING: usize = base::KEY_BYTES_MAX / 4;

/// Entries as pages hold them.
#[derive(Default)]
struct Entries {
    objects: Vec<ObjectEntry>,
    prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    next: Option<ListStart>,
}

impl Call<'_> {
    pub(super) async fn list_v1(self, params: ListObjectsV1) -> Result<Answer, Failure> {
        let start = behind(&params.marker, &params.prefix, params.delimiter.as_deref());
        let found = self
            .page(
                &params.prefix,
                params.delimiter.as_deref(),
                start,
                params.max_keys,
            )
            .await?;
        let is_truncated = found.next.is_some();
        let next_marker = match (&params.delimiter, found.next) {
            (Some(_), Some(ListStart::AfterKey(at) | ListStart::AfterPrefix(at))) => Some(at),
            _ => None,
        };
        let page = ObjectsPageV1 {
            bucket: self.bucket.name.as_str().to_owned(),
            prefix: params.prefix,
            delimiter: params.delimiter,
            marker: params.marker,
            next_marker,
            max_keys: params.max_keys,
            is_truncated,
            encoding: params.encoding,
            entries: found.objects,
            common_prefixes: found.prefixes,
        };
        Ok(Answer::xml(page.to_xml()))
    }

    pub(super) async fn list_v2(self, params: ListObjectsV2) -> Result<Answer, Failure> {
        let start = match (&params.continuation_token, &params.start_after) {
            (Some(token), _) => parse_token(token)?,
            (None, Some(key)) => ListStart::AfterKey(key.clone()),
            (None, None) => ListStart::Beginning,
        };
        let found = self
            .page(
                &params.prefix,
                params.delimiter.as_deref(),
                start,
                params.max_keys,
            )
            .await?;
        let page = ObjectsPageV2 {
            bucket: self.bucket.name.as_str().to_owned(),
            prefix: params.prefix,
            delimiter: params.delimiter,
            start_after: params.start_after,
            continuation_token: params.continuation_token,
            is_truncated: found.next.is_some(),
            next_continuation_token: found.next.as_ref().map(print_token),
            max_keys: params.max_keys,
            encoding: params.encoding,
            fetch_owner: params.fetch_owner,
            entries: found.objects,
            common_prefixes: found.prefixes,
        };
        Ok(Answer::xml(page.to_xml()))
    }

    /// Nothing is versioned, so each object is its own `null` version. Whoever removes versions one by
    /// one, as tools do that empty a bucket, thereby removes the objects.
    pub(super) async fn list_versions(self, params: ListVersions) -> Result<Answer, Failure> {
        let delimiter = params.delimiter.as_deref();
        let start = match params.version_id_marker {
            // The page before ended with a key, though it may look like a common prefix.
            Some(_) => ListStart::AfterKey(params.key_marker.clone()),
            None => behind(&params.key_marker, &params.prefix, delimiter),
        };
        let found = self
            .page(&params.prefix, delimiter, start, params.max_keys)
            .await?;
        let is_truncated = found.next.is_some();
        let (next_key_marker, next_version_id_marker) = match found.next {
            Some(ListStart::AfterKey(key)) => (Some(key), Some(NamedVersion::Null)),
            Some(ListStart::AfterPrefix(prefix)) => (Some(prefix), None),
            Some(ListStart::Beginning) | None => (None, None),
        };
        let page = NullVersionsPage {
            bucket: self.bucket.name.as_str().to_owned(),
            prefix: params.prefix,
            delimiter: params.delimiter,
            key_marker: params.key_marker,
            version_id_marker: params.version_id_marker,
            next_key_marker,
            next_version_id_marker,
            max_keys: params.max_keys,
            is_truncated,
            encoding: params.encoding,
            entries: found.objects,
            common_prefixes: found.prefixes,
        };
        Ok(Answer::xml(page.to_xml()))
    }

    async fn page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        start: ListStart,
        max_entries: u32,
    ) -> Result<Entries, Failure> {
        // Nobody can go on behind a page that may hold nothing: as in S3, it is the last one.
        if max_entries == 0 {
            return Ok(Entries::default());
        }
        let Listing { entries, truncated } = self
            .front
            .engine
            .list(&ListQuery {
                bucket: self.bucket.id,
                prefix: prefix.to_owned(),
                delimiter: delimiter.map(str::to_owned),
                start,
                max_entries,
            })
            .await?;
        let mut found = Entries::default();
        if truncated {
            found.next = entries.last().map(|last| match last {
                ListEntry::Object(object) => ListStart::AfterKey(object.key.clone()),
                ListEntry::Prefix(prefix) => ListStart::AfterPrefix(prefix.clone()),
            });
        }
        for entry in entries {
            match entry {
                ListEntry::Object(object) => found.objects.push(show(object)),
                ListEntry::Prefix(prefix) => found.prefixes.push(prefix),
            }
        }
        Ok(found)
    }

    pub(super) async fn list_uploads(self, params: ListUploads) -> Result<Answer, Failure> {
        let after = after_upload(&params)?;
        let found = match params.max_uploads {
            0 => engine::Uploads::default(),
            max_entries => {
                self.front
                    .engine
                    .list_uploads(&UploadQuery {
                        bucket: self.bucket.id,
                        prefix: params.prefix.clone(),
                        delimiter: params.delimiter.clone(),
                        after,
                        max_entries,
                    })
                    .await?
            }
        };
        let mut page = UploadsPage {
            bucket: self.bucket.name.as_str().to_owned(),
            prefix: params.prefix,
            delimiter: params.delimiter,
            key_marker: params.key_marker,
            upload_id_marker: params.upload_id_marker.unwrap_or_default(),
            max_uploads: params.max_uploads,
            is_truncated: found.truncated,
            encoding: params.encoding,
            ..UploadsPage::default()
        };
        if let (true, Some(last)) = (found.truncated, found.entries.last()) {
            (page.next_key_marker, page.next_upload_id_marker) = match last {
                UploadEntry::Upload { key, upload, .. } => {
                    (Some(key.clone()), Some(upload.to_string()))
                }
                UploadEntry::Prefix(prefix) => (Some(prefix.clone()), None),
            };
        }
        for entry in found.entries {
            match entry {
                UploadEntry::Prefix(prefix) => page.common_prefixes.push(prefix),
                UploadEntry::Upload {
                    key,
                    upload,
                    created,
                    checksum,
                } => {
                    page.entries.push(ShownUpload {
                        key,
                        upload_id: upload.to_string(),
                        initiated: created,
                        checksum: checksum
                            .map(|(algorithm, kind)| UploadChecksum { algorithm, kind }),
                    });
                }
            }
        }
        Ok(Answer::xml(page.to_xml()))
    }
}

fn show(object: ListedObject) -> ObjectEntry {
    ObjectEntry {
        key: object.key,
        size: object.size,
        etag: Some(object.etag),
        last_modified: object.last_modified,
        checksum: object
            .checksum
            .map(|(algorithm, kind)| UploadChecksum { algorithm, kind }),
    }
}

/// Where a page begins that is asked for by a marker.
fn behind(marker: &str, prefix: &str, delimiter: Option<&str>) -> ListStart {
    if marker.is_empty() {
        ListStart::Beginning
    } else if is_rolled_up(marker, prefix, delimiter) {
        ListStart::AfterPrefix(marker.to_owned())
    } else {
        ListStart::AfterKey(marker.to_owned())
    }
}

/// Whether a marker is a common prefix of this listing, which a page before ended with.
fn is_rolled_up(marker: &str, prefix: &str, delimiter: Option<&str>) -> bool {
    let (Some(delimiter), Some(rest)) = (delimiter, marker.strip_prefix(prefix)) else {
        return false;
    };
    rest.find(delimiter)
        .is_some_and(|at| at + delimiter.len() == rest.len())
}

fn after_upload(params: &ListUploads) -> Result<Option<(String, Option<UploadId>)>, Failure> {
    let marker = &params.key_marker;
    if marker.is_empty() {
        return Ok(None);
    }
    let upload = match &params.upload_id_marker {
        None => None,
        Some(id) => Some(id.parse::<UploadId>().map_err(|_| {
            Error::new(
                ErrorCode::InvalidArgument,
                "The upload-id-marker is not an upload id.",
            )
        })?),
    };
    if upload.is_none() && is_rolled_up(marker, &params.prefix, params.delimiter.as_deref()) {
        let behind = String::from(char::MAX).repeat(BEHIND_EVERYTHING);
        return Ok(Some((format!("{marker}{behind}"), None)));
    }
    Ok(Some((marker.clone(), upload)))
}

/// A token says what the next page begins behind. It stays valid for ever, because it names no
/// state of ours.
fn print_token(start: &ListStart) -> String {
    let text = match start {
        ListStart::Beginning => "b".to_owned(),
        ListStart::AfterKey(key) => format!("k{key}"),
        ListStart::AfterPrefix(prefix) => format!("p{prefix}"),
    };
    URL_SAFE_NO_PAD.encode(text)
}

fn parse_token(token: &str) -> Result<ListStart, Error> {
    let refuse = || {
        let message = "The continuation token provided is incorrect";
        Error::new(ErrorCode::InvalidArgument, message)
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
    let text = String::from_utf8(bytes).map_err(|_| refuse())?;
    match text.split_at_checked(1) {
        Some(("b", "")) => Ok(ListStart::Beginning),
        Some(("k", key)) if !key.contains('\0') => Ok(ListStart::AfterKey(key.to_owned())),
        Some(("p", prefix)) if !prefix.contains('\0') => {
            Ok(ListStart::AfterPrefix(prefix.to_owned()))
        }
        _ => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_out() {
        for start in [
            ListStart::Beginning,
            ListStart::AfterKey("a/ü\n%2F".into()),
            ListStart::AfterPrefix("k".repeat(1024)),
            ListStart::AfterKey(String::new()),
        ] {
            assert_eq!(parse_token(&print_token(&start)), Ok(start));
        }
        for token in ["", "!", "eA", "YmI", "awA"] {
            assert_eq!(
                parse_token(token).unwrap_err().code,
                ErrorCode::InvalidArgument,
                "{token}"
            );
        }
    }

    #[test]
    fn only_a_common_prefix_is_left_behind_as_a_whole() {
        assert!(is_rolled_up("a/", "", Some("/")));
        assert!(is_rolled_up("p/a--", "p/", Some("--")));
        assert!(!is_rolled_up("a/b", "", Some("/")));
        assert!(!is_rolled_up("a/b/", "", Some("/")));
        assert!(!is_rolled_up("a/", "", None));
        assert!(!is_rolled_up("a/", "b", Some("/")));
    }
}
