//! `reconcile --recover`: settles what a restored catalogue no longer knows.
//!
//! Every backend is listed. What is unknown and carries our own label is adopted: it becomes the
//! key's version unless the key has a later one. Everything else is reported. Nothing is deleted.
//!
//! A catalogue counts as restored where somebody said so, or where the markers of all its backends are
//! newer ([`Markers`]). One marker alone stops deletions, and proves nothing: a provider could have what
//! was deleted come back, and other backends' objects replaced by what it holds.
//!
//! Writes and uploads that the restored catalogue believed unfinished may have become objects since,
//! so they are let go of first, without queueing their bytes for deletion. An upload that became an
//! object on one backend is adopted like any other; one that was spread over several cannot be put
//! in order from its legs alone, and is reported. A provider may hide what it holds, so one that is found
//! alone is whole for certain only where there has never been another backend.

mod uploads;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backend::{Effect, Head, Kind, ListRequest, MARKER_KEY, ObjectBackend as _};
use base::{
    BackendKey, BackendName, Crc64, Crc64Hasher, ETag, LabelKey, Md5, Md5Hasher, Precondition,
    Tags, VersionId, report,
};
use futures_util::stream::StreamExt;
use metastore::model::{Adopted, Content, Extent, Known, NewBlob, NewCopy, NewVersion};
use uuid::Uuid;

use crate::fleet::{Markers, Member};
use crate::keys::{
    Label, LabelFault, LabelPlace, OWN_META, ParsedKey, Role, label_of, parse_backend_key,
};
use crate::verify::{LocationFault, look_at_all};
use crate::{Engine, Error, Result, Tried};

/// Keys listed at a time.
const KEYS_PER_PAGE: u32 = 1000;
/// Unknown legs of one backend that are held until all backends were looked at: about 120 bytes each with
/// usual keys, 1.1 KiB at most.
const LEGS_PER_BACKEND_MAX: usize = 200_000;
/// Unknown keys of one backend, ours or not, after which it is not believed any more.
const UNKNOWN_KEYS_PER_BACKEND_MAX: u64 = 100_000_000;
/// Unknown keys that are named in a report; the rest is counted.
const NAMED_MAX: usize = 1000;

/// Why an upload that may be only a part of its object is not adopted.
const LONE_UPLOAD: &str = "it may be only a part of its object; after `catalogue restored`, \
     `reconcile --recover --adopt-uploads` takes such uploads as whole objects";

/// What becomes of a finished upload of which one backend's is found alone, although others may have
/// held a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoneUploads {
    /// It is reported.
    Doubt,
    /// It is taken as the whole object.
    Adopt,
}

/// What a recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Keys that were listed on backends.
    pub listed: u64,
    /// Objects that were adopted.
    pub adopted: u64,
    /// Keys that carry our label but were not adopted: an older version, a leg of an upload, a
    /// bucket that is not configured, bytes that do not match their label.
    pub left: Vec<(BackendName, String, String)>,
    /// Keys that are not ours.
    pub foreign: Vec<(BackendName, String)>,
    /// Unknown keys beyond those named above.
    pub unnamed: u64,
    /// Copies that the catalogue knows and the backends do not have.
    pub missing: Vec<LocationFault>,
    /// Backends that could not be looked at: the recovery is not complete without them.
    pub unseen: Vec<(BackendName, String)>,
    /// What the markers say, where they do not prove that the catalogue was restored although one of
    /// them had spoken for it: nothing was adopted.
    pub doubt: Option<Markers>,
}

impl Recovered {
    fn leave(&mut self, backend: &BackendName, key: &str, why: impl Into<String>) {
        match self.left.len() < NAMED_MAX {
            true => self
                .left
                .push((backend.clone(), key.to_owned(), why.into())),
            false => self.unnamed += 1,
        }
    }
}

impl Engine {
    /// Reconciles a restored catalogue with its backends and, if all of them could be looked at,
    /// ends the recovery state. Of a catalogue that was not restored nothing was forgotten: what it
    /// does not know is reported and not adopted.
    pub async fn recover(&self) -> Result<Recovered> {
        self.recover_with(LoneUploads::Doubt).await
    }

    /// Does what [`Self::recover`] does, and with uploads of which one backend's is found alone what it
    /// is told.
    pub async fn recover_with(&self, lone: LoneUploads) -> Result<Recovered> {
        let inner = &self.inner;
        let mut found = Recovered::default();
        let mut walk = Walk {
            legs: Vec::new(),
            legs_of_backend: 0,
            unknown_of_backend: 0,
            standing: Standing::Current,
        };
        match self.prove_restored().await? {
            Proof::Restored => {
                inner.store.forget_pending().await?;
                walk.standing = Standing::Restored;
            }
            Proof::Doubt(markers) => found.doubt = Some(markers),
            Proof::Nothing => {}
        }
        for member in inner.fleet.members() {
            if let Some(reason) = member.out_of_service() {
                found
                    .unseen
                    .push((member.name().clone(), reason.to_string()));
                continue;
            }
            if let Err(error) = self.recover_backend(member, &mut found, &mut walk).await {
                found
                    .unseen
                    .push((member.name().clone(), report(&error).to_string()));
            }
        }
        self.recover_legs(walk.legs, lone, &mut found).await?;
        let (_, missing) = look_at_all(&inner.store, &inner.fleet).await?;
        found.missing = missing;
        if found.unseen.is_empty() {
            for member in inner.fleet.members() {
                inner.fleet.outrun(&inner.store, member).await?;
            }
            inner.store.leave_recovery().await?;
        }
        Ok(found)
    }

    /// Whether the catalogue was restored, as far as it can be proved.
    async fn prove_restored(&self) -> Result<Proof> {
        let inner = &self.inner;
        let catalogue = inner.store.catalogue();
        if catalogue.recovery.is_none() {
            return Ok(Proof::Nothing);
        }
        if catalogue.restored {
            return Ok(Proof::Restored);
        }
        let markers = inner.fleet.markers(&inner.store).await?;
        if !markers.prove_restored() {
            return Ok(Proof::Doubt(markers));
        }
        // Written down, because the end of the recovery replaces the markers one by one.
        let reason = "all backends were marked by a newer state of this catalogue";
        inner.store.enter_recovery(reason.to_owned()).await?;
        Ok(Proof::Restored)
    }

    /// Adopts the uploads that became an object on one backend alone.
    async fn recover_legs(
        &self,
        legs: Vec<FoundLeg>,
        lone: LoneUploads,
        found: &mut Recovered,
    ) -> Result<()> {
        let certain = self.inner.store.backends().await?.len() == 1;
        let mut per_upload: HashMap<VersionId, u32> = HashMap::new();
        for leg in &legs {
            *per_upload.entry(leg.upload).or_default() += 1;
        }
        for leg in legs {
            let FoundLeg {
                member,
                key,
                upload,
                role,
            } = leg;
            let alone = per_upload.get(&upload) == Some(&1);
            if !alone || !found.unseen.is_empty() {
                let why = "it is one of several legs of a multipart object";
                found.leave(member.name(), key.as_str(), why);
                continue;
            }
            if role == Role::PartOnly {
                let why = "it is a part of its object, of which the rest was not found";
                found.leave(member.name(), key.as_str(), why);
                continue;
            }
            if !certain && lone == LoneUploads::Doubt {
                found.leave(member.name(), key.as_str(), LONE_UPLOAD);
                continue;
            }
            match self.recover_leg(&member, &key).await {
                Ok(Adoption::Adopted) => found.adopted += 1,
                Ok(Adoption::Left(why)) => found.leave(member.name(), key.as_str(), why),
                Err(Error::ReadUnavailable { tried }) => {
                    let why = format!("it could not be looked at: {tried}");
                    found.leave(member.name(), key.as_str(), why.as_str());
                    found.unseen.push((member.name().clone(), why));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn recover_leg(&self, member: &Arc<Member>, key: &BackendKey) -> Result<Adoption> {
        let gone = || Ok(Adoption::Left("it was listed, and is gone".to_owned()));
        let Some(parsed) = parse_backend_key(key.as_str()) else {
            return gone();
        };
        let label_key = Arc::clone(&self.inner.store.catalogue().label_key);
        match look_at_listed(member, key, &label_key).await? {
            Some((head, Ok(label))) => self.adopt(member, key, parsed, label, head).await,
            Some((_, Err(fault))) => {
                let own = self.inner.store.catalogue().uuid;
                Ok(Adoption::Left(words(fault, own)))
            }
            None => gone(),
        }
    }

    async fn recover_backend(
        &self,
        member: &Arc<Member>,
        found: &mut Recovered,
        walk: &mut Walk,
    ) -> Result<()> {
        self.report_uploads(member, found).await?;
        walk.begin_backend();
        let (mut after, mut in_row) = (None, 0);
        let mut unread: Option<(String, Tried)> = None;
        loop {
            let request = ListRequest {
                prefix: String::new(),
                after: after.clone(),
                max_keys: KEYS_PER_PAGE,
            };
            let page = member
                .backend()
                .list(&request)
                .await
                .map_err(|e| unseen(member, e))?;
            for listed in &page.objects {
                found.listed += 1;
                match self.recover_key(member, &listed.key, found, walk).await {
                    Ok(()) => in_row = 0,
                    // One key that cannot be read keeps the recovery from being complete, and no other key from
                    // being adopted; where several follow each other, it is the backend.
                    Err(Error::ReadUnavailable { tried }) if in_row < FAILURES_IN_ROW_MAX => {
                        in_row += 1;
                        unread.get_or_insert((listed.key.clone(), tried));
                    }
                    Err(error) => return Err(error),
                }
            }
            if !page.truncated {
                break;
            }
            // An end that was not said is no end: what lies behind it may be acknowledged objects.
            let last = page.objects.into_iter().next_back().map(|last| last.key);
            if last <= after {
                return Err(unseen(member, stuck(member, "list")));
            }
            after = last;
        }
        match unread {
            None => Ok(()),
            Some((key, tried)) => {
                found.leave(
                    member.name(),
                    &key,
                    format!("it could not be looked at: {tried}"),
                );
                Err(Error::ReadUnavailable { tried })
            }
        }
    }

    async fn recover_key(
        &self,
        member: &Arc<Member>,
        key: &str,
        found: &mut Recovered,
        walk: &mut Walk,
    ) -> Result<()> {
        let store = &self.inner.store;
        if key == MARKER_KEY || store.known_key(member.id, key).await? != Known::No {
            return Ok(());
        }
        // Keys grow, so each one that is known comes once. The others are whatever a provider says.
        walk.count_unknown()
            .map_err(|what| unseen(member, beyond(member, "list", what)))?;
        let (Some(parsed), Some(place)) = (parse_backend_key(key), BackendKey::new(key)) else {
            match found.foreign.len() < NAMED_MAX {
                true => found.foreign.push((member.name().clone(), key.to_owned())),
                false => found.unnamed += 1,
            }
            return Ok(());
        };
        let label_key = Arc::clone(&store.catalogue().label_key);
        let Some((head, label)) = look_at_listed(member, &place, &label_key).await? else {
            found.leave(member.name(), key, "it was listed, and is gone");
            return Ok(());
        };
        let label = match label {
            Ok(label) => label,
            Err(fault) => {
                found.leave(member.name(), key, words(fault, store.catalogue().uuid));
                return Ok(());
            }
        };
        // Nothing was forgotten: these are the bytes of a write that was refused, or that was deleted, which the
        // backend has not let go of.
        if walk.standing == Standing::Current {
            let why = "this catalogue was not restored, so it was deleted or never acknowledged";
            found.leave(member.name(), key, why);
            return Ok(());
        }
        if label.role != Role::Whole {
            let member = Arc::clone(member);
            walk.count_leg()
                .map_err(|what| unseen(&member, beyond(&member, "list", what)))?;
            walk.legs.push(FoundLeg {
                member,
                key: place,
                upload: label.version,
                role: label.role,
            });
            return Ok(());
        }
        match self.adopt(member, &place, parsed, label, head).await? {
            Adoption::Adopted => found.adopted += 1,
            Adoption::Left(why) => found.leave(member.name(), key, why),
        }
        Ok(())
    }

    async fn adopt(
        &self,
        member: &Arc<Member>,
        place: &BackendKey,
        parsed: ParsedKey,
        label: Label,
        head: Head,
    ) -> Result<Adoption> {
        let Some(bucket) = self.bucket(&parsed.bucket).map(|bucket| bucket.id) else {
            return Ok(Adoption::Left(format!(
                "bucket {} is not configured",
                parsed.bucket
            )));
        };
        let Some(key) = parsed.key.or_else(|| label.key.clone()) else {
            return Ok(Adoption::Left("its label does not name its key".to_owned()));
        };
        let content = match read_found(member, place, &head, &label).await? {
            Ok(content) => content,
            Err(why) => return Ok(Adoption::Left(why.to_owned())),
        };
        let (crc64, etag) = (content.crc64, ETag::of_body(content.md5));
        let mut headers = head.headers;
        headers.user.retain(|(name, _)| name != OWN_META);
        let size = head.size;
        let copy = NewCopy {
            copy: parsed.copy,
            etag: head.etag,
            version: head.version,
            crc64: head.crc64,
        };
        let blob = NewBlob {
            blob: label.blob,
            size,
            crc64: Some(crc64),
            copies: vec![copy],
        };
        let extent = Extent {
            blob: label.blob,
            offset: 0,
            length: size,
        };
        let written = head.last_modified.unwrap_or_else(|| self.inner.clock.now());
        // A leg's label carries its upload's id, which is older than the object.
        let version = match label.role {
            Role::Whole => label.version,
            Role::FirstUpload | Role::PartOnly => label.version.at(written),
        };
        // No later write would ever take its place.
        if version.moment() > self.inner.clock.now().after(AHEAD_MAX) {
            return Ok(Adoption::Left("its version lies in the future".to_owned()));
        }
        let version = NewVersion {
            bucket,
            key,
            version,
            size,
            etag,
            last_modified: written,
            headers,
            // Tags are the catalogue's alone.
            tags: Tags::default(),
            checksum: None,
            parts: Vec::new(),
            content: Content::Written {
                blobs: vec![blob],
                extents: vec![extent],
            },
            precondition: Precondition::None,
        };
        let places = vec![(parsed.copy, member.id, place.clone())];
        let why = match self.inner.store.adopt(version, places).await? {
            Adopted::Yes => return Ok(Adoption::Adopted),
            Adopted::NewerVersion => "the key has a later version",
            Adopted::KnownCopy => "its copy is that of another object",
            Adopted::KnownBlob => "its blob is that of another object",
            Adopted::KnownVersion => "its version is that of another object",
            Adopted::Refused => "it does not fit the catalogue",
        };
        Ok(Adoption::Left(why.to_owned()))
    }
}

/// Whether a catalogue was restored.
enum Proof {
    /// Nothing speaks for it.
    Nothing,
    /// Something does, and the markers do not prove it.
    Doubt(Markers),
    /// It was.
    Restored,
}

/// What the catalogue is to what it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has forgotten nothing.
    Current,
    /// It may have forgotten what was acknowledged.
    Restored,
}

/// What a walk over the backends carries along.
struct Walk {
    legs: Vec<FoundLeg>,
    /// Legs of the backend that is walked.
    legs_of_backend: usize,
    /// Keys of it that the catalogue does not know.
    unknown_of_backend: u64,
    standing: Standing,
}

impl Walk {
    const fn begin_backend(&mut self) {
        (self.unknown_of_backend, self.legs_of_backend) = (0, 0);
    }

    /// Counts an unknown key; in words where that is one too many.
    const fn count_unknown(&mut self) -> std::result::Result<(), &'static str> {
        if self.unknown_of_backend == UNKNOWN_KEYS_PER_BACKEND_MAX {
            return Err("more unknown keys than there can be");
        }
        self.unknown_of_backend += 1;
        Ok(())
    }

    /// Counts a leg that is held; in words where that is one too many.
    const fn count_leg(&mut self) -> std::result::Result<(), &'static str> {
        if self.legs_of_backend == LEGS_PER_BACKEND_MAX {
            return Err("more unknown uploads than a recovery can hold");
        }
        self.legs_of_backend += 1;
        Ok(())
    }
}

/// A leg of an upload whose object the catalogue does not know.
///
/// There may be many, so nothing is kept of what a provider says of it: it is asked again.
struct FoundLeg {
    member: Arc<Member>,
    key: BackendKey,
    upload: VersionId,
    role: Role,
}

enum Adoption {
    Adopted,
    Left(String),
}

/// Keys that cannot be looked at, one behind the other, after which a backend is given up for this time.
const FAILURES_IN_ROW_MAX: u32 = 3;

/// How often an object is asked for before what it says of itself is believed: one odd answer must not decide
/// over an object that was acknowledged.
const LOOKS_MAX: u32 = 2;

/// Why an object with such a label is not adopted.
fn words(fault: LabelFault, own: Uuid) -> String {
    match fault {
        LabelFault::Absent => "it carries no label of ours".to_owned(),
        LabelFault::Foreign { catalogue } if catalogue == own => {
            "its label is not from this catalogue, or was moved here".to_owned()
        }
        LabelFault::Foreign { catalogue } => format!("it belongs to catalogue {catalogue}"),
    }
}

/// How far the clocks of those who write may be ahead.
const AHEAD_MAX: Duration = Duration::from_secs(15 * 60);

/// What a HEAD says of a key that was listed; `None` where it is gone.
///
/// # Errors
/// That of the backend, also where it goes on listing what it denies having: it has not been looked at then.
async fn look_at_listed(
    member: &Member,
    place: &BackendKey,
    label_key: &LabelKey,
) -> Result<Option<(Head, std::result::Result<Label, LabelFault>)>> {
    let label_place = LabelPlace {
        label_key,
        backend: member.name(),
        key: place,
    };
    let mut denied = None;
    let mut unlabelled = None;
    for _ in 0..LOOKS_MAX {
        match member.backend().head(place, None).await {
            Ok(head) => match label_of(&head.headers, label_place) {
                Ok(label) => return Ok(Some((head, Ok(label)))),
                Err(fault) => unlabelled = Some((head, Err(fault))),
            },
            Err(error) if error.kind == Kind::NotFound => denied = Some(error),
            Err(error) => return Err(unseen(member, error)),
        }
    }
    let Some(denied) = denied.filter(|_| unlabelled.is_none()) else {
        return Ok(unlabelled);
    };
    let request = ListRequest {
        prefix: place.to_string(),
        after: None,
        max_keys: 1,
    };
    let page = member.backend().list(&request).await;
    let page = page.map_err(|error| unseen(member, error))?;
    let listed = page
        .objects
        .iter()
        .any(|listed| listed.key == place.as_str());
    if listed {
        return Err(unseen(
            member,
            denied.with_message(format!("{place} is listed, but a HEAD denies it")),
        ));
    }
    Ok(None)
}

/// Bytes that were found, and are what the backend and the label say of them.
struct FoundContent {
    crc64: Crc64,
    md5: Md5,
}

/// Reads an object whole and compares it with all that is said of it; in words where that does not fit.
async fn read_found(
    member: &Member,
    place: &BackendKey,
    head: &Head,
    label: &Label,
) -> Result<std::result::Result<FoundContent, &'static str>> {
    let mut wrong = "it was not read";
    for _ in 0..LOOKS_MAX {
        let version = head.version.as_deref();
        let fetched = member.backend().get(place, version, None).await;
        let fetched = fetched.map_err(|error| unseen(member, error))?;
        let same_object = fetched.head.size == head.size && fetched.head.etag == head.etag;
        let (mut length, mut crc64, mut md5) = (0, Crc64Hasher::new(), Md5Hasher::new());
        let mut body = fetched.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| unseen(member, error))?;
            length += chunk.len() as u64;
            crc64.update(&chunk);
            md5.update(&chunk);
        }
        let (crc64, md5) = (crc64.sum(), md5.finish());
        let tag = head.etag.as_ref().and_then(ETag::as_md5);
        let tag = tag.filter(|_| member.backend().capabilities().md5_etag);
        wrong = if label.crc64.is_some_and(|expected| expected != crc64) {
            "its bytes do not match its label"
        } else if length != head.size || !same_object {
            "a GET says something else of it than a HEAD"
        } else if head.crc64.is_some_and(|expected| expected != crc64) {
            "its bytes do not match the checksum that the backend gives for them"
        } else if tag.is_some_and(|expected| expected != md5) {
            "its bytes do not match their entity tag"
        } else {
            return Ok(Ok(FoundContent { crc64, md5 }));
        };
    }
    Ok(Err(wrong))
}

/// The error of a listing whose pages do not go on.
fn stuck(member: &Member, operation: &'static str) -> backend::Error {
    backend::Error::new(Kind::Unavailable, Effect::None, member.name(), operation)
        .with_message("a page of the listing does not go on behind the one before it")
}

/// The error of a listing that says more than is believed.
fn beyond(member: &Member, operation: &'static str, what: &str) -> backend::Error {
    backend::Error::new(Kind::Unavailable, Effect::None, member.name(), operation)
        .with_message(what.to_owned())
}

fn unseen(member: &Member, error: backend::Error) -> Error {
    Error::ReadUnavailable {
        tried: Tried(vec![(member.name().clone(), error)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_lists_more_than_there_can_be_is_not_followed_and_the_next_one_is() {
        let mut walk = Walk {
            legs: Vec::new(),
            legs_of_backend: LEGS_PER_BACKEND_MAX - 1,
            unknown_of_backend: UNKNOWN_KEYS_PER_BACKEND_MAX - 1,
            standing: Standing::Restored,
        };
        assert!(walk.count_unknown().is_ok() && walk.count_leg().is_ok());
        assert!(walk.count_unknown().is_err() && walk.count_leg().is_err());
        walk.begin_backend();
        assert!(walk.count_unknown().is_ok() && walk.count_leg().is_ok());
    }
}
