//! Operations on buckets themselves. Buckets come from the configuration: they are listed and asked
//! about here, never made or removed.

use base::BucketName;
use http::{HeaderMap, HeaderValue};
use s3wire::xml::{self, BucketEntry, Buckets, VersioningStatus};
use s3wire::{Error, ErrorCode, Target};

use super::super::Front;
use super::super::render::{Answer, Failure};
use super::{Call, REGION};

impl Front {
    /// ListBuckets: those that the caller's credential opens.
    pub(super) fn list_buckets(
        &self,
        target: &Target,
        own: &BucketName,
    ) -> Result<Answer, Failure> {
        let Target::Service(params) = target else {
            return Err(ErrorCode::InvalidRequest.into());
        };
        // There is one page, so nobody can have got a token from us.
        if params.continuation_token.is_some() {
            let message = "The continuation token provided is incorrect";
            return Err(Error::new(ErrorCode::InvalidArgument, message).into());
        }
        let found = self
            .engine
            .bucket(own)
            .filter(|bucket| bucket.name.as_str().starts_with(&params.prefix));
        let entry = |bucket: &engine::catalogue::Bucket| BucketEntry {
            name: bucket.name.clone(),
            created: bucket.created,
        };
        let page = Buckets {
            buckets: found.map(entry).into_iter().collect(),
            prefix: Some(params.prefix.clone()).filter(|prefix| !prefix.is_empty()),
            continuation_token: None,
        };
        Ok(Answer::xml(page.to_xml()))
    }
}

impl Call<'_> {
    pub(super) fn head_bucket() -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", HeaderValue::from_static(REGION));
        Answer::empty(headers)
    }

    pub(super) fn location() -> Answer {
        Answer::xml(xml::print_location(REGION))
    }

    pub(super) fn versioning() -> Answer {
        Answer::xml(xml::print_versioning(VersioningStatus::Off))
    }

    pub(super) fn delete_bucket() -> Failure {
        let message = "Buckets are removed in the configuration.";
        Error::new(ErrorCode::NotImplemented, message).into()
    }
}
