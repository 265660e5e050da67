//! What an error document names besides the error: what the request was about.

use base::{BucketName, ObjectKey};
use http::header::RANGE;
use http::request::Parts;
use s3wire::form::ENCLOSURE;
use s3wire::headers::condition_on_trial;
use s3wire::xml::ErrorDocument;
use s3wire::{ErrorCode, ObjectOp, Query, Target};

use super::ticket::Ticket;

/// What a request said that its errors repeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    upload: Option<String>,
    range: Option<String>,
    condition: Option<&'static str>,
    /// What a copy reads: where a bucket or a key is missing, it is this one.
    source: Option<(BucketName, ObjectKey)>,
}

impl Said {
    /// What the head of a request tells.
    pub(super) fn of(parts: &Parts) -> Self {
        let query = Query::parse(parts.uri.query().unwrap_or("")).ok();
        let upload = query.and_then(|query| {
            let id = query.value("uploadId").ok()?;
            id.map(str::to_owned)
        });
        let range = parts.headers.get(RANGE).map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            text.into_owned()
        });
        Self {
            upload,
            range,
            condition: condition_on_trial(&parts.method, &parts.headers),
            source: None,
        }
    }

    /// The body of a POST on a bucket is no form.
    pub(super) fn is_no_form(&mut self) {
        self.condition = Some(ENCLOSURE);
    }

    /// The bucket that asked for exists: what can be missing from now on is the source of a copy.
    pub(super) fn reads(&mut self, target: &Target) {
        self.source = source(target).map(|(bucket, key)| (bucket.clone(), key.clone()));
    }
}

/// What a copy reads.
pub(super) fn source(target: &Target) -> Option<(&BucketName, &ObjectKey)> {
    let from = match target {
        Target::Object(_, _, ObjectOp::CopyObject(from)) => from,
        Target::Object(_, _, ObjectOp::UploadPartCopy(params)) => &params.source,
        _ => return None,
    };
    Some((&from.bucket, &from.key))
}

/// Everything that an error document of a request names, apart from the request: an answer that was
/// begun loses its ticket to its body.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    path: String,
    bucket: Option<BucketName>,
    key: Option<ObjectKey>,
    said: Said,
    request_id: String,
    host_id: String,
}

impl Subject {
    /// That of a request.
    pub(super) fn of(ticket: &Ticket) -> Self {
        Self {
            path: ticket.path().to_owned(),
            bucket: ticket.bucket.clone(),
            key: ticket.key.clone(),
            said: ticket.said.clone(),
            request_id: ticket.id.as_str().to_owned(),
            host_id: ticket.host_id.as_str().to_owned(),
        }
    }

    /// The document of an error. `size` is that of the object that a range does not fit.
    pub(super) fn document(
        self,
        code: ErrorCode,
        message: String,
        size: Option<u64>,
    ) -> ErrorDocument {
        let resource = match (&self.bucket, &self.key) {
            (Some(bucket), Some(key)) => format!("/{bucket}/{key}"),
            (Some(bucket), None) => format!("/{bucket}"),
            (None, _) => self.path.clone(),
        };
        ErrorDocument {
            code: code.as_str().to_owned(),
            message,
            details: self.details(code, size),
            resource,
            request_id: self.request_id,
            host_id: self.host_id,
        }
    }

    /// The elements that Amazon S3 adds to the errors of these codes, as far as they are known.
    fn details(&self, code: ErrorCode, size: Option<u64>) -> Vec<(&'static str, String)> {
        let (bucket, key) = match &self.said.source {
            Some((bucket, key)) => (Some(bucket), Some(key)),
            None => (self.bucket.as_ref(), self.key.as_ref()),
        };
        let found = match code {
            ErrorCode::NoSuchKey => vec![("Key", key.map(ToString::to_string))],
            ErrorCode::NoSuchBucket
            | ErrorCode::NoSuchCorsConfiguration
            | ErrorCode::BucketNotEmpty
            | ErrorCode::BucketAlreadyExists
            | ErrorCode::BucketAlreadyOwnedByYou => {
                vec![("BucketName", bucket.map(ToString::to_string))]
            }
            ErrorCode::NoSuchUpload => vec![("UploadId", self.said.upload.clone())],
            ErrorCode::PreconditionFailed => {
                vec![("Condition", self.said.condition.map(str::to_owned))]
            }
            ErrorCode::InvalidRange => vec![
                ("RangeRequested", self.said.range.clone()),
                ("ActualObjectSize", size.map(|size| size.to_string())),
            ],
            _ => Vec::new(),
        };
        let known = |(name, value): (_, Option<String>)| Some((name, value?));
        found.into_iter().filter_map(known).collect()
    }
}
