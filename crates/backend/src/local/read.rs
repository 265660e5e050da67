//! Bodies of objects: positional reads on blocking threads, one chunk at a time.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{BackendKey, BackendName, ByteRange, ETag};
use bytes::Bytes;
use futures_util::stream::try_unfold;

use super::failure::LocalError;
use super::files::OpenFile;
use super::names;
use super::parts::PartsHold;
use super::record::{BytesAt, PartRef};
use super::store::{LocalStore, OpenedFile, PARTS, Root};
use super::write::blocking;
use crate::{Body, Head, Kind};

/// The first chunk is read together with the record: small objects cost one turn of a thread.
const FIRST_CHUNK_BYTES: u64 = 64 * 1024;

/// Every further chunk, in bytes.
const CHUNK_BYTES: u64 = 256 * 1024;

/// What a file says, as the trait tells it. The entity tag is the checksum: stable, and not to be
/// mistaken for an MD5.
pub(super) fn head_of(opened: &OpenedFile) -> Head {
    Head {
        size: opened.record.size,
        etag: Some(etag_of(opened.record.crc64)),
        version: None,
        crc64: Some(opened.record.crc64),
        last_modified: Some(opened.modified),
        headers: opened.record.headers.clone(),
    }
}

pub(super) fn etag_of(crc64: base::Crc64) -> ETag {
    ETag::new(&format!("{:016x}", crc64.0))
}

pub(super) fn part_path(upload: &str, number: u32) -> PathBuf {
    Path::new(PARTS).join(upload).join(format!("{number:05}"))
}

/// Consecutive bytes of one file.
struct FileRange {
    file: PieceFile,
    offset: u64,
    length: u64,
}

enum PieceFile {
    Open(Arc<dyn OpenFile>),
    /// Opened when its turn comes, so that ten thousand parts need one descriptor.
    Part {
        path: PathBuf,
        whole: PartRef,
    },
}

/// A body that is being read.
pub(super) struct LocalBody {
    store: Arc<LocalStore>,
    pieces: VecDeque<FileRange>,
    /// Read ahead together with the head.
    first: Option<Bytes>,
    _hold: Option<PartsHold>,
}

/// Opens an object and finds the bytes asked for.
pub(super) fn begin(
    store: &Arc<LocalStore>,
    key: &BackendKey,
    range: Option<ByteRange>,
) -> Result<(Head, LocalBody), LocalError> {
    let opened = store.open_object(key)?;
    let head = head_of(&opened);
    let range = range.unwrap_or(ByteRange::whole(head.size));
    if range
        .start
        .checked_add(range.length)
        .is_none_or(|end| end > head.size)
    {
        return Err(LocalError::new(Kind::Range));
    }
    let mut reading = LocalBody {
        store: Arc::clone(store),
        pieces: VecDeque::new(),
        first: None,
        _hold: None,
    };
    match &opened.record.place {
        BytesAt::Here => {
            let file = PieceFile::Open(Arc::clone(&opened.file));
            let piece = FileRange {
                file,
                offset: range.start,
                length: range.length,
            };
            reading.pieces.push_back(piece);
        }
        BytesAt::Parts { upload, parts } => {
            let hold = store.hold_parts(upload);
            // A delete that moved the record aside before the hold was noted may be removing parts.
            let path = store.absolute(Path::new(&names::path_of(key.as_str())));
            match store.files.stat(&path) {
                Ok(_) => reading._hold = Some(hold),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(LocalError::new(Kind::NotFound));
                }
                Err(error) => return Err(LocalError::harmless(error)),
            }
            reading.pieces = pieces_of(upload, parts, range);
        }
        BytesAt::Upload { .. } => {
            return Err(LocalError::saying(
                Kind::Corrupt,
                "the file is the record of an upload",
            ));
        }
    }
    reading.first = reading.read(FIRST_CHUNK_BYTES)?;
    Ok((head, reading))
}

fn pieces_of(upload: &str, parts: &[PartRef], range: ByteRange) -> VecDeque<FileRange> {
    let mut offset = 0;
    let mut pieces = VecDeque::new();
    for part in parts {
        let here = ByteRange {
            start: offset,
            length: part.size,
        };
        offset = here.end();
        let Some(wanted) = here.intersect(range) else {
            continue;
        };
        let path = part_path(upload, part.number);
        pieces.push_back(FileRange {
            file: PieceFile::Part { path, whole: *part },
            offset: wanted.start - here.start,
            length: wanted.length,
        });
    }
    pieces
}

impl LocalBody {
    /// The next bytes, at most `bytes_max`; `None` at the end.
    fn read(&mut self, bytes_max: u64) -> Result<Option<Bytes>, LocalError> {
        loop {
            let Some(piece) = self.pieces.front_mut() else {
                return Ok(None);
            };
            if piece.length == 0 {
                self.pieces.pop_front();
                continue;
            }
            let file = match &piece.file {
                PieceFile::Open(file) => Arc::clone(file),
                PieceFile::Part { path, whole } => {
                    let file = open_part(&self.store, path, whole)?;
                    piece.file = PieceFile::Open(Arc::clone(&file));
                    file
                }
            };
            let take = piece.length.min(bytes_max);
            let mut chunk = vec![0; usize::try_from(take).expect("a chunk fits into memory")];
            file.read_at(&mut chunk, piece.offset)
                .map_err(LocalError::harmless)?;
            piece.offset += take;
            piece.length -= take;
            return Ok(Some(Bytes::from(chunk)));
        }
    }

    /// The body: every byte asked for, or an error.
    pub(super) fn into_body(self, backend: BackendName) -> Body {
        Box::pin(try_unfold(
            (self, backend),
            |(mut reading, backend)| async move {
                if let Some(first) = reading.first.take() {
                    return Ok(Some((first, (reading, backend))));
                }
                if reading.pieces.iter().all(|piece| piece.length == 0) {
                    return Ok(None);
                }
                let next = blocking(move || {
                    let chunk = reading.read(CHUNK_BYTES)?;
                    Ok(chunk.map(|chunk| (chunk, reading)))
                });
                match next.await {
                    Ok(next) => Ok(next.map(|(chunk, reading)| (chunk, (reading, backend)))),
                    Err(failure) => Err(failure.into_error(&backend, "get")),
                }
            },
        ))
    }
}

fn open_part(
    store: &LocalStore,
    path: &Path,
    whole: &PartRef,
) -> Result<Arc<dyn OpenFile>, LocalError> {
    let missing =
        || LocalError::saying(Kind::Corrupt, "a part of the object is missing or differs");
    let opened = store.open(path)?.ok_or_else(missing)?;
    let record = &opened.record;
    match record.size == whole.size && record.crc64 == whole.crc64 {
        true => Ok(opened.file),
        false => Err(missing()),
    }
}

/// What is known of an object without its bytes.
pub(super) fn head(store: &LocalStore, key: &BackendKey) -> Result<Head, LocalError> {
    let opened = store.open_object(key)?;
    match opened.record.place {
        BytesAt::Here | BytesAt::Parts { .. } => Ok(head_of(&opened)),
        BytesAt::Upload { .. } => Err(LocalError::saying(
            Kind::Corrupt,
            "the file is the record of an upload",
        )),
    }
}

/// Whether the root is there; also the one question after which a new root is believed.
pub(super) fn check(store: &LocalStore, root: Root) -> Result<(), LocalError> {
    store.ready(root)
}
