//! DeleteObject and DeleteObjects.

use base::{ETagCondition, ObjectKey, Precondition};
use engine::DeleteOutcome;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3wire::xml::{
    DELETE_BODY_BYTES_MAX, Delete, DeleteFailure, DeleteItem, DeleteResult, Deleted,
};
use s3wire::{Error, ErrorCode, NamedVersion};

use super::super::intake::Vouched;
use super::super::render::{Answer, Failure, describe};
use super::super::ticket::Ticket;
use super::{Absence, Call};
use crate::config::Verb;

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");
/// The one version that exists where nothing is versioned.
const NULL_VERSION: HeaderValue = HeaderValue::from_static(NamedVersion::NULL);

impl Call<'_> {
    pub(super) async fn delete(self, key: ObjectKey) -> Result<Answer, Failure> {
        let precondition = self.precondition(&key)?;
        if precondition == Precondition::Absent {
            return Err(Error::new(
                ErrorCode::NotImplemented,
                "If-None-Match on a delete is not implemented.",
            )
            .into());
        }
        match self
            .front
            .engine
            .remove(self.bucket.id, key, precondition)
            .await?
        {
            DeleteOutcome::Deleted | DeleteOutcome::Absent => {}
        }
        let mut answer = Answer::silent();
        if self.version.is_some() {
            answer.headers = HeaderMap::from_iter([(VERSION_ID, NULL_VERSION)]);
        }
        Ok(answer)
    }

    pub(super) async fn delete_objects(self, ticket: &Ticket) -> Result<Answer, Failure> {
        let (body, vouched) = self
            .body
            .read_whole(&self.headers, DELETE_BODY_BYTES_MAX)
            .await?;
        if vouched == Vouched::No {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
            )
            .into());
        }
        let request = Delete::from_xml(&body)?;
        let mut result = DeleteResult::default();
        let mut note = |item: &DeleteItem, outcome: Result<DeleteOutcome, Failure>| match outcome {
            Ok(DeleteOutcome::Deleted | DeleteOutcome::Absent) if request.quiet => {}
            Ok(DeleteOutcome::Deleted | DeleteOutcome::Absent) => result.deleted.push(Deleted {
                key: item.key.as_str().to_owned(),
                version_id: item.version_id.clone(),
            }),
            Err(failure) => {
                let (code, message) = describe(&failure, &ticket.body);
                result.failed.push(DeleteFailure {
                    key: item.key.as_str().to_owned(),
                    version_id: item.version_id.clone(),
                    code: code.to_owned(),
                    message,
                });
            }
        };
        let engine = &self.front.engine;
        let mut plain = Vec::new();
        for item in &request.items {
            let is_null = item
                .version_id
                .as_deref()
                .is_none_or(|id| id == NamedVersion::NULL);
            let name = &self.bucket.name;
            let allowed = self.rights.allow(Verb::Delete, name, item.key.as_str());
            match &item.etag {
                _ if !allowed => note(item, Err(ErrorCode::AccessDenied.into())),
                _ if !is_null => note(item, Err(ErrorCode::NoSuchVersion.into())),
                None => plain.push(item),
                Some(_) if !self.rights.allow(Verb::Read, name, item.key.as_str()) => {
                    note(item, Err(ErrorCode::AccessDenied.into()));
                }
                Some(etag) => {
                    let only = Precondition::Match(ETagCondition::Tags(vec![etag.clone()]));
                    let removed = engine.remove(self.bucket.id, item.key.clone(), only).await;
                    let absence = Absence::of_key(&self.rights, name, &item.key);
                    note(item, removed.map_err(|error| absence.told(error.into())));
                }
            }
        }
        let keys = plain.iter().map(|item| item.key.clone()).collect();
        let removed = engine.remove_many(self.bucket.id, keys).await;
        for (item, outcome) in plain.into_iter().zip(removed) {
            note(item, outcome.map_err(Failure::from));
        }
        Ok(Answer::xml(result.to_xml()))
    }
}
