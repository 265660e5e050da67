//! What a [`super::MemoryBackend`] holds, as a plain value without async.

use std::collections::BTreeMap;
use std::ops::Bound;

use base::{
    ByteRange, ChecksumAlgorithm, Crc64, ETag, Hasher, Md5Hasher, ObjectHeaders, Timestamp,
};
use bytes::{Bytes, BytesMut};

use super::{Calls, MemoryOptions, MemoryUpload, PAGE_ENTRIES_MAX, Versions, sums};
use crate::{
    Head, Kind, ListPage, ListRequest, Listed, ListedUpload, PartFact, PartListPage, StoredPart,
    UploadListPage, VersionRef,
};

/// The bytes of an object or part and what is known of them.
#[derive(Debug, Clone)]
pub(super) struct StoredContent {
    pub(super) size: u64,
    pub(super) etag: ETag,
    pub(super) crc64: Crc64,
    /// The pieces; those of a completed upload are its parts, which are not joined.
    segments: Vec<Bytes>,
}

impl StoredContent {
    pub(super) fn of_body(bytes: Bytes) -> Self {
        let (md5, crc64) = sums(&bytes);
        Self {
            size: bytes.len() as u64,
            etag: ETag::of_body(md5),
            crc64,
            segments: vec![bytes],
        }
    }

    fn of_parts(parts: &[&Self]) -> Self {
        let mut md5 = Md5Hasher::new();
        let mut crc64 = Crc64::EMPTY;
        for part in parts {
            md5.update(&part.etag.as_md5().expect("a part's tag is its MD5").0);
            crc64 = crc64.then(part.crc64, part.size);
        }
        Self {
            size: parts.iter().map(|part| part.size).sum(),
            etag: ETag::of_parts(md5.finish(), parts.len()),
            crc64,
            segments: parts
                .iter()
                .flat_map(|part| part.segments.iter().cloned())
                .collect(),
        }
    }

    pub(super) fn joined(&self) -> Bytes {
        join(&self.segments)
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        let mut hasher = Hasher::new(ChecksumAlgorithm::Sha256);
        for segment in &self.segments {
            hasher.update(segment);
        }
        hasher
            .finish()
            .bytes()
            .try_into()
            .expect("a SHA-256 has 32 bytes")
    }

    /// The bytes of `range`, which lies within, in pieces of at most `piece_bytes_max`.
    pub(super) fn pieces(&self, range: ByteRange, piece_bytes_max: usize) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut offset = 0;
        for segment in &self.segments {
            let here = ByteRange {
                start: offset,
                length: segment.len() as u64,
            };
            offset = here.end();
            let Some(wanted) = here.intersect(range) else {
                continue;
            };
            let start = usize::try_from(wanted.start - here.start).expect("within a segment");
            let length = usize::try_from(wanted.length).expect("within a segment");
            let mut rest = segment.slice(start..start + length);
            while !rest.is_empty() {
                pieces.push(rest.split_to(rest.len().min(piece_bytes_max)));
            }
        }
        pieces
    }
}

pub(super) fn join(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [only] => only.clone(),
        several => {
            let mut joined = BytesMut::with_capacity(several.iter().map(Bytes::len).sum());
            several
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    }
}

/// One version of an object.
#[derive(Debug)]
pub(super) struct Version {
    id: Option<String>,
    pub(super) content: StoredContent,
    pub(super) headers: ObjectHeaders,
    written: Timestamp,
}

impl Version {
    pub(super) fn head(&self) -> Head {
        Head {
            size: self.content.size,
            etag: Some(self.content.etag.clone()),
            version: self.id.clone(),
            crc64: Some(self.content.crc64),
            last_modified: Some(self.written),
            headers: self.headers.clone(),
        }
    }
}

/// What stands under a key: versions and delete markers, oldest first.
#[derive(Debug)]
enum KeyEntry {
    Object(Box<Version>),
    Marker { id: String },
}

impl KeyEntry {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Object(version) => version.id.as_deref(),
            Self::Marker { id } => Some(id),
        }
    }
}

#[derive(Debug)]
struct OpenUpload {
    key: String,
    headers: ObjectHeaders,
    parts: BTreeMap<u32, StoredContent>,
}

/// All that the backend holds.
#[derive(Debug)]
pub(super) struct MemoryState {
    options: MemoryOptions,
    pub(super) calls: Calls,
    objects: BTreeMap<String, Vec<KeyEntry>>,
    uploads: BTreeMap<String, OpenUpload>,
    drawn: u64,
    /// The next object that is assembled is made of another first part than was listed.
    pub(super) misassembles: bool,
}

impl MemoryState {
    pub(super) fn new(options: MemoryOptions) -> Self {
        Self {
            options,
            calls: Calls::default(),
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            drawn: 0,
            misassembles: false,
        }
    }

    fn draw(&mut self, what: char) -> String {
        self.drawn += 1;
        format!("{what}{:08}", self.drawn)
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let objects = self.objects.values().flatten().map(|entry| match entry {
            KeyEntry::Object(version) => version.content.size,
            KeyEntry::Marker { .. } => 0,
        });
        let parts = self
            .uploads
            .values()
            .flat_map(|upload| upload.parts.values());
        objects.sum::<u64>() + parts.map(|part| part.size).sum::<u64>()
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let Some(max) = self.options.bytes_max else {
            return true;
        };
        self.used_bytes()
            .checked_add(bytes)
            .is_some_and(|used| used <= max)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let holds = |entries: &[KeyEntry]| entries.iter().any(|e| matches!(e, KeyEntry::Object(_)));
        self.objects
            .iter()
            .filter(|(_, entries)| holds(entries))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn find(&self, key: &str, version: Option<&str>) -> Option<&Version> {
        let entries = self.objects.get(key)?;
        let entry = match version {
            None => entries.last(),
            Some(_) => entries.iter().find(|entry| entry.id() == version),
        };
        match entry? {
            KeyEntry::Object(version) => Some(version),
            KeyEntry::Marker { .. } => None,
        }
    }

    pub(super) fn store(
        &mut self,
        key: &str,
        content: StoredContent,
        headers: ObjectHeaders,
        written: Timestamp,
    ) -> Option<String> {
        let id = match self.options.versions {
            Versions::Off => None,
            Versions::On => Some(self.draw('v')),
        };
        let version = Version {
            id: id.clone(),
            content,
            headers,
            written,
        };
        let entries = self.objects.entry(key.to_owned()).or_default();
        if self.options.versions == Versions::Off {
            entries.clear();
        }
        entries.push(KeyEntry::Object(Box::new(version)));
        id
    }

    /// Whether there was something to delete. A delete without version id on a bucket with versions
    /// always succeeds: it adds a delete marker.
    pub(super) fn delete(&mut self, key: &str, version: Option<&str>) -> bool {
        match (self.options.versions, version) {
            (Versions::On, None) => {
                let id = self.draw('m');
                self.objects
                    .entry(key.to_owned())
                    .or_default()
                    .push(KeyEntry::Marker { id });
                true
            }
            (Versions::Off, None) => self.objects.remove(key).is_some(),
            (_, Some(_)) => {
                let Some(entries) = self.objects.get_mut(key) else {
                    return false;
                };
                let before = entries.len();
                entries.retain(|entry| entry.id() != version);
                let removed = entries.len() < before;
                if entries.is_empty() {
                    self.objects.remove(key);
                }
                removed
            }
        }
    }

    pub(super) fn lose(&mut self, key: &str) -> bool {
        self.objects.remove(key).is_some()
    }

    pub(super) fn rot(&mut self, key: &str) -> bool {
        let Some(KeyEntry::Object(version)) = self
            .objects
            .get_mut(key)
            .and_then(|entries| entries.last_mut())
        else {
            return false;
        };
        let mut bytes = BytesMut::from(version.content.joined());
        let Some(first) = bytes.first_mut() else {
            return false;
        };
        *first ^= 1;
        version.content.segments = vec![bytes.freeze()];
        true
    }

    pub(super) fn list(&self, request: &ListRequest) -> ListPage {
        let limit = usize::try_from(request.max_keys)
            .map_or(PAGE_ENTRIES_MAX, |max| max.clamp(1, PAGE_ENTRIES_MAX));
        let from = match &request.after {
            Some(after) if *after >= request.prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(request.prefix.as_str()),
        };
        let mut objects: Vec<Listed> = self
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&request.prefix))
            .filter_map(|(key, entries)| match entries.last() {
                Some(KeyEntry::Object(version)) => Some(Listed {
                    key: key.clone(),
                    size: version.content.size,
                }),
                Some(KeyEntry::Marker { .. }) | None => None,
            })
            .take(limit + 1)
            .collect();
        let truncated = objects.len() > limit;
        objects.truncate(limit);
        ListPage { objects, truncated }
    }

    /// The versions of a key, newest first as S3 lists them.
    pub(super) fn versions(&self, key: &str) -> Vec<VersionRef> {
        let entries = self.objects.get(key).map_or(&[][..], Vec::as_slice);
        entries
            .iter()
            .rev()
            .map(|entry| VersionRef {
                version: entry.id().map(str::to_owned),
                delete_marker: matches!(entry, KeyEntry::Marker { .. }),
            })
            .collect()
    }

    pub(super) fn create_upload(&mut self, key: &str, headers: ObjectHeaders) -> String {
        let id = self.draw('u');
        let upload = OpenUpload {
            key: key.to_owned(),
            headers,
            parts: BTreeMap::new(),
        };
        self.uploads.insert(id.clone(), upload);
        id
    }

    pub(super) fn upload_is_open(&self, key: &str, upload: &str) -> bool {
        self.uploads.get(upload).is_some_and(|open| open.key == key)
    }

    pub(super) fn add_part(
        &mut self,
        key: &str,
        upload: &str,
        number: u32,
        content: StoredContent,
    ) -> Result<(), Kind> {
        if !self.upload_is_open(key, upload) {
            return Err(Kind::NoSuchUpload);
        }
        if !self.has_room(content.size) {
            return Err(Kind::Full);
        }
        let open = self
            .uploads
            .get_mut(upload)
            .expect("the upload was found above");
        open.parts.insert(number, content);
        Ok(())
    }

    pub(super) fn complete(
        &mut self,
        key: &str,
        upload: &str,
        parts: &[PartFact],
        now: Timestamp,
    ) -> Result<(StoredContent, Option<String>), Kind> {
        if !self.upload_is_open(key, upload) {
            return Err(Kind::NoSuchUpload);
        }
        let ascending = parts.windows(2).all(|pair| pair[0].number < pair[1].number);
        if parts.is_empty() || !ascending {
            return Err(Kind::InvalidPart);
        }
        let open = &self.uploads[upload];
        let mut named = Vec::with_capacity(parts.len());
        for fact in parts {
            let held = open.parts.get(&fact.number).ok_or(Kind::InvalidPart)?;
            if held.etag != fact.etag || fact.crc64.is_some_and(|crc64| crc64 != held.crc64) {
                return Err(Kind::InvalidPart);
            }
            named.push(held);
        }
        let spoilt = std::mem::take(&mut self.misassembles).then(|| {
            let mut bytes = BytesMut::from(named[0].joined());
            if let Some(first) = bytes.first_mut() {
                *first ^= 1;
            }
            StoredContent::of_body(bytes.freeze())
        });
        if let Some(spoilt) = &spoilt {
            named[0] = spoilt;
        }
        let content = StoredContent::of_parts(&named);
        let open = self
            .uploads
            .remove(upload)
            .expect("the upload was found above");
        let version = self.store(key, content.clone(), open.headers, now);
        Ok((content, version))
    }

    pub(super) fn abort(&mut self, key: &str, upload: &str) -> bool {
        self.upload_is_open(key, upload) && self.uploads.remove(upload).is_some()
    }

    pub(super) fn list_parts(&self, key: &str, upload: &str, after: u32) -> Option<PartListPage> {
        let open = self.uploads.get(upload).filter(|open| open.key == key)?;
        let mut parts: Vec<StoredPart> = open
            .parts
            .range((Bound::Excluded(after), Bound::Unbounded))
            .take(PAGE_ENTRIES_MAX + 1)
            .map(|(number, part)| StoredPart {
                number: *number,
                etag: part.etag.clone(),
                size: part.size,
            })
            .collect();
        let truncated = parts.len() > PAGE_ENTRIES_MAX;
        parts.truncate(PAGE_ENTRIES_MAX);
        Some(PartListPage { parts, truncated })
    }

    pub(super) fn open_uploads(&self) -> Vec<MemoryUpload> {
        let mut uploads: Vec<MemoryUpload> = self
            .uploads
            .iter()
            .map(|(id, upload)| MemoryUpload {
                key: upload.key.clone(),
                upload: id.clone(),
                parts: upload
                    .parts
                    .iter()
                    .map(|(number, part)| (*number, part.size))
                    .collect(),
            })
            .collect();
        uploads.sort_by(|a, b| (&a.key, &a.upload).cmp(&(&b.key, &b.upload)));
        uploads
    }

    pub(super) fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> UploadListPage {
        let behind = |upload: &MemoryUpload| {
            after.is_none_or(|after| (&upload.key, &upload.upload) > (&after.key, &after.upload))
        };
        let mut uploads: Vec<ListedUpload> = self
            .open_uploads()
            .into_iter()
            .filter(|upload| upload.key.starts_with(prefix) && behind(upload))
            .take(PAGE_ENTRIES_MAX + 1)
            .map(|upload| ListedUpload {
                key: upload.key,
                upload: upload.upload,
            })
            .collect();
        let truncated = uploads.len() > PAGE_ENTRIES_MAX;
        uploads.truncate(PAGE_ENTRIES_MAX);
        UploadListPage { uploads, truncated }
    }
}
