//! A body on its way from the copies of an object.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use backend::{Body, Effect, Guarded, Head, Kind, ObjectBackend as _};
use base::{BackendName, BlobId, ByteRange, CopyId, ETag, Traffic};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use metastore::model::{CopyRow, CopyState, PlannedExtent};

use super::ReadGuard;
use super::resume::Resumes;
use super::whole::{Content, WholeCheck, spoilt};
use crate::fleet::Member;
use crate::placement::{Readable, order_copies};
use crate::{Engine, Error, Result, Tried};

/// Whole blobs up to this many bytes are read and compared before the head of the answer: one chunk
/// of a backend's client. Where they are wrong, another copy can still be read.
const COMPARED_AHEAD_BYTES_MAX: u64 = 256 << 10;

/// Bytes of one blob that are still to be read.
struct Piece {
    extent: PlannedExtent,
    /// The bytes within the blob.
    range: ByteRange,
    /// All of the blob is read in order, by this piece or by it and others, and what it has to be is known.
    compared: bool,
    /// A copy whose backend has promised its traffic, until it is first opened.
    admitted: Option<(CopyId, Guarded)>,
    /// Copies that brought wrong bytes in this read.
    refused: Vec<CopyId>,
}

/// The copies of a piece that may be read, in the order in which they are tried.
struct Candidates<'a> {
    order: Vec<(&'a CopyRow, &'a Arc<Member>)>,
    /// Others are left out for usage limits.
    limited: bool,
    /// Others are left out because their bytes are wrong.
    corrupt: bool,
}

impl Piece {
    fn traffic(&self) -> Traffic {
        Traffic {
            egress: self.range.length,
            ..Traffic::requests(1)
        }
    }

    /// The copies that may be read, with their backends. What is promised already needs no room. A copy
    /// whose bytes are wrong is read only where they will be compared.
    fn candidates<'a>(&'a self, engine: &'a Engine, promised: Option<CopyId>) -> Candidates<'a> {
        let fleet = &engine.inner.fleet;
        let (mut limited, mut corrupt) = (false, false);
        let known = self.extent.copies.iter().filter_map(|copy| {
            let wrong = copy.state == CopyState::Corrupt && !self.compared;
            if wrong || self.refused.contains(&copy.copy) {
                corrupt = true;
                return None;
            }
            let member = fleet.member(copy.backend)?;
            let readable = Readable {
                state: copy.state,
                within_usage: promised == Some(copy.copy) || member.usage().fits(self.traffic()),
            };
            limited |= !readable.within_usage;
            Some(((copy, member), readable))
        });
        let order = order_copies(known);
        Candidates {
            order,
            limited,
            corrupt,
        }
    }

    /// Has a backend promise the traffic of this piece.
    fn admit(&mut self, engine: &Engine) -> Result<()> {
        let Candidates {
            order, mut limited, ..
        } = self.candidates(engine, None);
        let mut others = false;
        let mut admitted = None;
        for (copy, member) in order {
            if !member.in_service() {
                others = true;
                continue;
            }
            match member.admit(self.traffic()) {
                Some(backend) => {
                    admitted = Some((copy.copy, backend));
                    break;
                }
                None => limited = true,
            }
        }
        if admitted.is_none() && limited && !others {
            return Err(Error::ReadLimited);
        }
        self.admitted = admitted;
        Ok(())
    }
}

/// The parts of the extents that lie in the range, in order.
fn pieces(extents: Vec<PlannedExtent>, range: ByteRange) -> VecDeque<Piece> {
    let mut at = 0;
    let mut pieces = VecDeque::new();
    for extent in extents {
        let here = ByteRange {
            start: at,
            length: extent.extent.length,
        };
        at += extent.extent.length;
        if let Some(wanted) = here.intersect(range) {
            let start = extent.extent.offset + (wanted.start - here.start);
            let range = ByteRange {
                start,
                length: wanted.length,
            };
            let whole = range == ByteRange::whole(extent.blob_size);
            pieces.push_back(Piece {
                compared: whole && extent.crc64.is_some(),
                extent,
                range,
                admitted: None,
                refused: Vec::new(),
            });
        }
    }
    if pieces.len() > 1 {
        compare_across(&mut pieces);
    }
    pieces
}

/// Has the blobs compared that several pieces read whole: from the first byte to the last, whatever lies between.
fn compare_across(pieces: &mut VecDeque<Piece>) {
    let mut reached: HashMap<BlobId, Option<u64>> = HashMap::new();
    for piece in &*pieces {
        let reached = reached.entry(piece.extent.extent.blob).or_insert(Some(0));
        let goes_on = *reached == Some(piece.range.start);
        *reached = goes_on.then_some(piece.range.end());
    }
    for piece in pieces {
        let whole = reached[&piece.extent.extent.blob] == Some(piece.extent.blob_size);
        piece.compared = whole && piece.extent.crc64.is_some();
    }
}

struct Current {
    piece: Piece,
    body: Body,
    check: Option<WholeCheck>,
}

/// Bytes that were compared before anybody asked for them: mostly one chunk, for which no queue is
/// allocated, and what follows it.
#[derive(Default)]
struct Ahead {
    first: Option<Bytes>,
    others: VecDeque<Bytes>,
}

impl Ahead {
    fn push(&mut self, bytes: Bytes) {
        match self.first {
            None => self.first = Some(bytes),
            Some(_) => self.others.push_back(bytes),
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.others.pop_front())
    }
}

/// A read under way.
pub(super) struct Reader {
    engine: Engine,
    pieces: VecDeque<Piece>,
    current: Option<Current>,
    /// Comparisons of blobs of which further pieces follow.
    begun: Vec<(BlobId, WholeCheck)>,
    ahead: Ahead,
    delivered: u64,
    resumes: Resumes,
    _guard: ReadGuard,
}

impl Reader {
    /// Has backends promise the traffic of the whole range, so that no limit ends what has begun.
    pub(super) fn new(
        engine: &Engine,
        extents: Vec<PlannedExtent>,
        range: ByteRange,
        guard: ReadGuard,
    ) -> Result<Self> {
        let mut pieces = pieces(extents, range);
        for piece in &mut pieces {
            piece.admit(engine)?;
        }
        Ok(Self {
            engine: engine.clone(),
            pieces,
            current: None,
            begun: Vec::new(),
            ahead: Ahead::default(),
            delivered: 0,
            resumes: Resumes::default(),
            _guard: guard,
        })
    }

    /// Opens the next piece, where there is one.
    pub(super) async fn advance(&mut self) -> Result<()> {
        let Some(piece) = self.pieces.pop_front() else {
            return Ok(());
        };
        let check = self.check(&piece);
        // It is opened where it stays: what a future holds is moved with it.
        let Current { piece, body, check } = self.current.insert(Current {
            piece,
            body: Box::pin(stream::empty()),
            check,
        });
        *body = open_piece(&self.engine, piece, check.as_mut()).await?;
        Ok(())
    }

    /// The comparison that a piece begins, or goes on with.
    fn check(&mut self, piece: &Piece) -> Option<WholeCheck> {
        let expected = piece.extent.crc64.filter(|_| piece.compared)?;
        if piece.range.start == 0 {
            return Some(WholeCheck::new(expected));
        }
        let blob = piece.extent.extent.blob;
        let place = self.begun.iter().position(|(begun, _)| *begun == blob)?;
        Some(self.begun.swap_remove(place).1)
    }

    /// Reads a small blob, and compares it, before anything of it is handed out. Another copy takes the
    /// place of one whose bytes are wrong.
    pub(super) async fn compare_ahead(&mut self) -> Result<()> {
        let small = self.pieces.is_empty()
            && self.current.as_ref().is_some_and(|current| {
                current.check.is_some() && current.piece.range.length <= COMPARED_AHEAD_BYTES_MAX
            });
        if !small {
            return Ok(());
        }
        loop {
            match self.pull().await {
                Ok(Some(bytes)) => self.ahead.push(bytes),
                Ok(None) => return Ok(()),
                Err(Error::Corrupt) => Box::pin(self.begin_anew()).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the current piece from its first byte, from a copy that brought no wrong bytes.
    async fn begin_anew(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        self.ahead = Ahead::default();
        self.delivered = 0;
        self.resumes.begin_anew();
        current.piece.range = ByteRange::whole(current.piece.extent.blob_size);
        let mut check = current.piece.extent.crc64.map(WholeCheck::new);
        current.body = open_piece(&self.engine, &mut current.piece, check.as_mut()).await?;
        current.check = check;
        Ok(())
    }

    /// The next bytes; the last of a blob that is read whole only once all of it is right.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.ahead.pop() {
            Some(bytes) => Ok(Some(bytes)),
            None => self.pull().await,
        }
    }

    async fn pull(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            if current.piece.range.length == 0 {
                self.current = None;
                // Boxed, as below: a stream that is moved carries no state of what comes rarely.
                Box::pin(self.advance()).await?;
                continue;
            }
            let failure = match current.body.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) if bytes.len() as u64 <= current.piece.range.length => {
                    current.piece.range.start += bytes.len() as u64;
                    current.piece.range.length -= bytes.len() as u64;
                    self.delivered += bytes.len() as u64;
                    if let Some(check) = &mut current.check {
                        check.update(&bytes);
                    }
                    if current.piece.range.length == 0 {
                        let extent = &current.piece.extent;
                        if current.piece.range.start < extent.blob_size {
                            let begun = current.check.take();
                            self.begun
                                .extend(begun.map(|check| (extent.extent.blob, check)));
                        } else if let Some(check) = &current.check {
                            conclude(&self.engine, &mut current.piece, check).await?;
                        }
                    }
                    return Ok(Some(bytes));
                }
                Some(Err(error)) => Some(error),
                // Too long or too short: another answer may be right.
                Some(Ok(_)) | None => None,
            };
            let Some(pause) = self.resumes.next(self.delivered) else {
                let tried = failure.map(|error| (error.backend.clone(), error));
                return Err(Error::ReadUnavailable {
                    tried: Tried(tried.into_iter().collect()),
                });
            };
            if let Some(error) = failure {
                tracing::warn!(error = %base::report(&error), "backend response broke off, read resumed");
            }
            // What the broken answer still owed is not owed any more.
            current.body = Box::pin(stream::empty());
            Box::pin(tokio::time::sleep(pause)).await;
            let check = current.check.as_mut();
            let opened = Box::pin(open_piece(&self.engine, &mut current.piece, check)).await;
            self.engine.report_limits("GetObject", &opened);
            current.body = opened?;
        }
    }
}

/// Opens a piece at the best copy that answers. One that is not what was written is not asked again.
async fn open_piece(
    engine: &Engine,
    piece: &mut Piece,
    check: Option<&mut WholeCheck>,
) -> Result<Body> {
    let admitted = piece.admitted.take();
    let mut wrong = Vec::new();
    let opened = try_copies(engine, piece, admitted, check, &mut wrong).await;
    piece.refused.extend(wrong);
    opened
}

async fn try_copies(
    engine: &Engine,
    piece: &Piece,
    mut admitted: Option<(CopyId, Guarded)>,
    mut check: Option<&mut WholeCheck>,
    wrong: &mut Vec<CopyId>,
) -> Result<Body> {
    let promised = admitted.as_ref().map(|(copy, _)| *copy);
    let Candidates {
        order,
        mut limited,
        corrupt,
    } = piece.candidates(engine, promised);
    let mut tried = Tried::default();
    for (copy, member) in order {
        // A backend that lost its mount denies having anything; that must not be believed.
        if !member.in_service() {
            tried
                .0
                .push(failed(member, Kind::Unavailable, "out of service"));
            continue;
        }
        let backend = match admitted.take_if(|(promised, _)| *promised == copy.copy) {
            Some((_, backend)) => Some(backend),
            None => member.admit(piece.traffic()),
        };
        let Some(backend) = backend else {
            limited = true;
            continue;
        };
        match read_copy(engine, piece, copy, &backend).await {
            Ok(body) => {
                if let Some(check) = &mut check {
                    check.uses(copy.copy);
                }
                return Ok(body);
            }
            Err(error) => {
                if error.kind == Kind::Corrupt {
                    wrong.push(copy.copy);
                }
                tried.0.push((member.name().clone(), error));
            }
        }
    }
    if tried.0.is_empty() && limited {
        return Err(Error::ReadLimited);
    }
    let all_wrong = tried.0.iter().all(|(_, error)| error.kind == Kind::Corrupt);
    if all_wrong && (corrupt || !tried.0.is_empty()) {
        return Err(Error::Corrupt);
    }
    Err(Error::ReadUnavailable { tried })
}

/// The end of a whole blob: wrong bytes are an error, and what was learnt of its copies is written down.
///
/// # Errors
/// [`Error::Corrupt`]
async fn conclude(engine: &Engine, piece: &mut Piece, check: &WholeCheck) -> Result<()> {
    let used = check.used();
    let copies = &piece.extent.copies;
    match check.content() {
        Content::Right => {
            let only = used.only();
            let only = copies.iter().find(|row| only == Some(row.copy));
            if let Some(only) = only.filter(|row| row.state != CopyState::Good) {
                Box::pin(mark(engine, only, CopyState::Good)).await;
            }
            Ok(())
        }
        Content::Wrong => {
            let rows = copies.iter().filter(|row| used.contains(row.copy));
            let rows: Vec<&CopyRow> = rows.collect();
            let state = spoilt(&rows);
            for row in rows {
                let member = engine.inner.fleet.member(row.backend);
                let backend = member.map_or("unknown", |member| member.name().as_str());
                // A person is woken once, not by every reader of a copy that is known to be wrong.
                if row.state == CopyState::Corrupt {
                    tracing::warn!(copy = %row.copy, %backend, key = %row.key, "corrupt copy read again");
                } else {
                    tracing::error!(
                        copy = %row.copy, %backend, key = %row.key,
                        "copy has other bytes than were written"
                    );
                }
                Box::pin(mark(engine, row, state)).await;
            }
            piece.refused.extend(used.iter());
            Err(Error::Corrupt)
        }
    }
}

/// Writes down what a copy is held for; a read does not fail because that fails.
async fn mark(engine: &Engine, copy: &CopyRow, state: CopyState) {
    if let Err(error) = engine.inner.store.mark_copy(copy.copy, state).await {
        let error = base::report(&error);
        tracing::warn!(copy = %copy.copy, state = state.name(), %error, "could not record the state of a copy");
    }
}

/// Begins to read a piece from one copy. Where its bytes are compared, they decide, and not its entity tag.
async fn read_copy(
    engine: &Engine,
    piece: &Piece,
    copy: &CopyRow,
    backend: &Guarded,
) -> backend::Result<Body> {
    let whole = piece.range == ByteRange::whole(piece.extent.blob_size);
    let range = (!whole).then_some(piece.range);
    let fetched = backend
        .get(&copy.key, copy.version.as_deref(), range)
        .await?;
    let Some(difference) = difference(&fetched.head, piece, copy, backend) else {
        return Ok(fetched.body);
    };
    let differs = difference.to_string();
    if matches!(difference, Difference::Tag) && piece.compared {
        tracing::warn!(
            copy = %copy.copy, backend = %backend.name(), key = %copy.key, differs,
            "entity tag of a copy contradicts the catalogue, its bytes are compared"
        );
        return Ok(fetched.body);
    }
    if copy.state == CopyState::Good {
        tracing::error!(
            copy = %copy.copy, backend = %backend.name(), key = %copy.key, differs,
            "copy is not what was written"
        );
        mark(engine, copy, CopyState::Suspect).await;
    }
    let error = backend::Error::new(Kind::Corrupt, Effect::None, backend.name(), "get");
    Err(error.with_message(differs))
}

/// What the head of an answer says against a copy.
enum Difference {
    /// Another size.
    Size { found: u64, expected: u64 },
    /// Another MD5, where entity tags are known to be that.
    Tag,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { found, expected } => {
                write!(f, "the copy has {found} bytes instead of {expected}")
            }
            Self::Tag => f.write_str("the copy has another entity tag than it was stored with"),
        }
    }
}

/// What the head of an answer says against the copy. It says nothing for it.
fn difference(head: &Head, piece: &Piece, copy: &CopyRow, backend: &Guarded) -> Option<Difference> {
    let (found, expected) = (head.size, piece.extent.blob_size);
    if found != expected {
        return Some(Difference::Size { found, expected });
    }
    // Mostly they are the same text, and nothing is parsed.
    if head.etag == copy.etag || !backend.capabilities().md5_etag {
        return None;
    }
    let md5 = |tag: &Option<ETag>| tag.as_ref().and_then(ETag::as_md5);
    let (found, expected) = (md5(&head.etag), md5(&copy.etag));
    let other = found.is_some() && expected.is_some() && found != expected;
    other.then_some(Difference::Tag)
}

fn failed(member: &Member, kind: Kind, words: &str) -> (BackendName, backend::Error) {
    let error = backend::Error::new(kind, Effect::None, member.name(), "get");
    (member.name().clone(), error.with_message(words))
}
