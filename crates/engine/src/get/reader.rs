//! A body on its way from the copies of an object.

use std::collections::VecDeque;
use std::sync::Arc;

use backend::{Body, Effect, Guarded, Kind, ObjectBackend as _};
use base::{BackendName, ByteRange, CopyId, Traffic};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use metastore::model::{CopyRow, CopyState, PlannedExtent};

use super::ReadGuard;
use super::resume::Resumes;
use crate::fleet::Member;
use crate::placement::{Readable, order_copies};
use crate::{Engine, Error, Result, Tried};

/// Bytes of one blob that are still to be read.
struct Piece {
    extent: PlannedExtent,
    /// The bytes within the blob.
    range: ByteRange,
    /// A copy whose backend has promised its traffic, until it is first opened.
    admitted: Option<(CopyId, Guarded)>,
}

impl Piece {
    fn traffic(&self) -> Traffic {
        Traffic {
            egress: self.range.length,
            ..Traffic::requests(1)
        }
    }

    /// The copies that may be read, with their backends, in the order in which they are tried; and
    /// whether others are left out for usage limits. What is promised already needs no room.
    fn candidates<'a>(
        &'a self,
        engine: &'a Engine,
        promised: Option<CopyId>,
    ) -> (Vec<(&'a CopyRow, &'a Arc<Member>)>, bool) {
        let fleet = &engine.inner.fleet;
        let mut limited = false;
        let known = self.extent.copies.iter().filter_map(|copy| {
            let member = fleet.member(copy.backend)?;
            let readable = Readable {
                state: copy.state,
                within_usage: promised == Some(copy.copy) || member.usage().fits(self.traffic()),
            };
            limited |= !readable.within_usage;
            Some(((copy, member), readable))
        });
        let order = order_copies(known);
        (order, limited)
    }

    /// Has a backend promise the traffic of this piece.
    fn admit(&mut self, engine: &Engine) -> Result<()> {
        let (candidates, mut limited) = self.candidates(engine, None);
        let mut others = false;
        let mut admitted = None;
        for (copy, member) in candidates {
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
            pieces.push_back(Piece {
                extent,
                range,
                admitted: None,
            });
        }
    }
    pieces
}

struct Current {
    piece: Piece,
    body: Body,
}

/// A read under way.
pub(super) struct Reader {
    engine: Engine,
    pieces: VecDeque<Piece>,
    current: Option<Current>,
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
            delivered: 0,
            resumes: Resumes::default(),
            _guard: guard,
        })
    }

    /// Opens the next piece, where there is one.
    pub(super) async fn advance(&mut self) -> Result<()> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return Ok(());
        };
        let body = open_piece(&self.engine, &mut piece).await?;
        self.current = Some(Current { piece, body });
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
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
                tracing::warn!(error = %base::report(&error), "body goes on from another answer");
            }
            // What the broken answer still owed is not owed any more.
            current.body = Box::pin(stream::empty());
            Box::pin(tokio::time::sleep(pause)).await;
            let opened = Box::pin(open_piece(&self.engine, &mut current.piece)).await;
            self.engine.report_limits("GetObject", &opened);
            current.body = opened?;
        }
    }
}

/// Opens a piece at the best copy that answers.
async fn open_piece(engine: &Engine, piece: &mut Piece) -> Result<Body> {
    let mut admitted = piece.admitted.take();
    let promised = admitted.as_ref().map(|(copy, _)| *copy);
    let (candidates, mut limited) = piece.candidates(engine, promised);
    let mut tried = Tried::default();
    for (copy, member) in candidates {
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
        match read_copy(engine, piece, copy, &backend).await? {
            Ok(body) => return Ok(body),
            Err(error) => tried.0.push((member.name().clone(), error)),
        }
    }
    match tried.0.is_empty() && limited {
        true => Err(Error::ReadLimited),
        false => Err(Error::ReadUnavailable { tried }),
    }
}

/// Begins to read a piece from one copy; the inner error is the backend's.
async fn read_copy(
    engine: &Engine,
    piece: &Piece,
    copy: &CopyRow,
    backend: &Guarded,
) -> Result<backend::Result<Body>> {
    let whole = piece.range == ByteRange::whole(piece.extent.blob_size);
    let range = (!whole).then_some(piece.range);
    let fetched = match backend.get(&copy.key, copy.version.as_deref(), range).await {
        Ok(fetched) => fetched,
        Err(error) => return Ok(Err(error)),
    };
    let (found, expected) = (fetched.head.size, piece.extent.blob_size);
    if found != expected {
        let words = format!("the copy has {found} bytes instead of {expected}");
        let error = backend::Error::new(Kind::Corrupt, Effect::None, backend.name(), "get");
        return Ok(Err(error.with_message(words)));
    }
    if copy.state == CopyState::Suspect {
        let store = &engine.inner.store;
        store.mark_copy(copy.copy, CopyState::Good).await?;
    }
    Ok(Ok(fetched.body))
}

fn failed(member: &Member, kind: Kind, words: &str) -> (BackendName, backend::Error) {
    let error = backend::Error::new(kind, Effect::None, member.name(), "get");
    (member.name().clone(), error.with_message(words))
}
