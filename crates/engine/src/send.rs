//! One body to as many backends as a write needs, with failover: the heart of every write.
//!
//! A body up to [`WITHHELD_BYTES_MAX`] is verified before anything is sent. A larger one flows while
//! it is verified, and only its last piece is withheld: until the whole body has been verified, and,
//! for each leg, until what announces the leg (an intent, or a claim on a part) is durable. So no
//! backend can hold all bytes of something that was not announced, or not what the client declared.

use std::sync::Arc;

use async_trait::async_trait;
use backend::{Effect, Fetched, Kind, ObjectBackend as _, Payload, Proof, Stored};
use base::{ByteSize, Crc64, Crc64Hasher, ETag, Md5, Md5Hasher};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use metastore::Intent;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument as _;

use crate::body::{Digests, Incoming, Verifier, WantMd5};
use crate::fleet::Member;
use crate::window::Window;
use crate::{Error, Result, Tried};

/// Bodies up to this many bytes are withheld whole until they are verified and announced.
pub(crate) const WITHHELD_BYTES_MAX: u64 = 64 << 10;

/// How often one body is sent, all backends taken together.
const ATTEMPTS_MAX: usize = 4;

/// How a write ends on one backend, and where its bytes can be looked at afterwards.
pub(crate) struct Attempt<T> {
    pub(crate) member: Arc<Member>,
    /// Makes the attempt known, durably. What it yields settles itself when it is dropped.
    pub(crate) announce: BoxFuture<'static, Result<T>>,
    pub(crate) target: Arc<dyn Target>,
}

/// A place that takes bytes once.
#[async_trait]
pub(crate) trait Target: Send + Sync {
    /// Sends the bytes.
    async fn put(&self, payload: Payload) -> backend::Result<Stored>;

    /// What is there after a write of unknown outcome: its size, and what the backend says of it.
    async fn look(&self) -> backend::Result<(u64, Stored)>;

    /// Reads everything back; `None` where this place cannot be read before it is completed.
    async fn read_back(&self) -> Option<backend::Result<Fetched>>;
}

/// What an announcement yields: it settles itself when it is dropped.
pub(crate) trait Token: Send + 'static {
    /// The backend has answered: nothing more of the attempt can appear.
    fn answered(&self);
}

impl Token for Intent {
    fn answered(&self) {
        Self::answered(self);
    }
}

/// Where attempts come from, and where failed ones go.
#[async_trait]
pub(crate) trait Attempts: Send {
    /// What an announcement yields.
    type Token: Token;

    /// The next place to try. `tried` are the failures so far.
    async fn next(&mut self, tried: &Tried) -> Result<Option<Attempt<Self::Token>>>;

    /// Settles an attempt that failed.
    async fn give_up(&mut self, token: Self::Token, effect: Effect);
}

/// How a body is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendOptions {
    /// How many backends must hold the bytes.
    pub(crate) copies: usize,
    /// Bytes kept for another backend.
    pub(crate) replay_window: ByteSize,
    /// Whether the MD5 must be computed here.
    pub(crate) want_md5: WantMd5,
}

/// A copy that stands, proven.
pub(crate) struct Sent<T> {
    pub(crate) member: Arc<Member>,
    pub(crate) token: T,
    pub(crate) stored: Stored,
    /// The MD5 of the bytes, where the backend or reading back told it.
    pub(crate) md5: Option<Md5>,
}

/// All copies of a body.
pub(crate) struct Delivery<T> {
    pub(crate) copies: Vec<Sent<T>>,
    pub(crate) digests: Digests,
    /// The entity tag of the bytes: their MD5.
    pub(crate) etag: ETag,
    pub(crate) tried: Tried,
}

/// Sends a body to `options.copies` places.
///
/// # Errors
/// What the client did wrong; [`Error::NoRoom`] or [`Error::WriteUnavailable`] where no place took
/// the bytes. Every attempt that did not end in the delivery has been given up.
pub(crate) async fn send<A: Attempts>(
    body: Incoming,
    options: SendOptions,
    attempts: &mut A,
) -> Result<Delivery<A::Token>> {
    // The first place is chosen before the body is polled: a refusal costs the client nothing.
    let first = attempts.next(&Tried::default()).await?;
    let first = first.ok_or(Error::WriteUnavailable {
        tried: Tried::default(),
    })?;
    match body.length <= WITHHELD_BYTES_MAX {
        true => send_withheld(body, options, first, attempts).await,
        false => send_streamed(body, options, first, attempts).await,
    }
}

async fn send_withheld<A: Attempts>(
    body: Incoming,
    options: SendOptions,
    first: Attempt<A::Token>,
    attempts: &mut A,
) -> Result<Delivery<A::Token>> {
    let sha256 = body.declared.sha256;
    let mut delivery = Collector::new(options.copies, body.length);
    let (bytes, digests) = collect(body, options.want_md5).await?;
    let mut next = Some(first);
    while !delivery.is_enough() {
        let attempt = match next.take() {
            Some(attempt) => attempt,
            None => delivery.another(attempts).await?,
        };
        let Attempt {
            member,
            announce,
            target,
        } = attempt;
        let token = match announce.await {
            Ok(token) => token,
            Err(error) => return Err(delivery.fail(attempts, error).await),
        };
        let payload = Payload {
            crc64: Some(digests.crc64),
            sha256,
            md5: digests.md5,
            ..Payload::from_bytes(bytes.clone())
        };
        let put = async move {
            let result = target.put(payload).await;
            Ok(LegEnd::new(member, target, token, result))
        };
        let end = finished(detached(put).await)?;
        delivery
            .take(end, digests, bytes.len() as u64, attempts)
            .await;
    }
    delivery.finish(attempts, digests).await
}

async fn collect(mut body: Incoming, want_md5: WantMd5) -> Result<(Bytes, Digests)> {
    let mut verifier = Verifier::new(body.length, body.declared, want_md5);
    let mut whole = BytesMut::new();
    let mut single: Option<Bytes> = None;
    while let Some(piece) = body.stream.next().await {
        let piece = piece?;
        verifier.update(&piece)?;
        match single.take() {
            None if whole.is_empty() => single = Some(piece),
            None => whole.extend_from_slice(&piece),
            Some(before) => {
                whole.extend_from_slice(&before);
                whole.extend_from_slice(&piece);
            }
        }
    }
    let digests = verifier.finish()?;
    Ok((single.unwrap_or_else(|| whole.freeze()), digests))
}

async fn send_streamed<A: Attempts>(
    body: Incoming,
    options: SendOptions,
    first: Attempt<A::Token>,
    attempts: &mut A,
) -> Result<Delivery<A::Token>> {
    let length = body.length;
    let window = Window::new(length, options.replay_window.0);
    let mut delivery = Collector::new(options.copies, length);
    let mut legs = FuturesUnordered::new();
    legs.push(detached(leg(first, &window, length)));
    let mut pump = std::pin::pin!(pump(body, options.want_md5, &window));
    let mut digests: Option<Digests> = None;
    let mut early: Vec<LegEnd<A::Token>> = Vec::new();
    loop {
        if let Some(digests) = digests {
            for end in early.drain(..) {
                delivery.take(end, digests, length, attempts).await;
            }
            if delivery.is_enough() {
                return delivery.finish(attempts, digests).await;
            }
        }
        while delivery.len() + legs.len() + early.len() < options.copies {
            if !window.can_replay() {
                return Err(delivery.out_of_backends(attempts).await);
            }
            let attempt = delivery.another(attempts).await?;
            legs.push(detached(leg(attempt, &window, length)));
        }
        tokio::select! {
            pumped = &mut pump, if digests.is_none() => match pumped {
                Ok(verified) => digests = Some(verified),
                Err(error) => {
                    window.cut();
                    while let Some(end) = legs.next().await {
                        if let Ok(end) = finished(end) {
                            let effect = end.effect();
                            attempts.give_up(end.token, effect).await;
                        }
                    }
                    return Err(delivery.fail(attempts, error).await);
                }
            },
            Some(end) = legs.next() => match finished(end) {
                Err(error) => return Err(delivery.fail(attempts, error).await),
                // A leg can only have succeeded after the body was verified.
                Ok(end) if end.result.is_ok() && digests.is_none() => early.push(end),
                Ok(end) => match digests {
                    Some(digests) => delivery.take(end, digests, length, attempts).await,
                    None => delivery.lose(end, attempts).await,
                },
            },
        }
    }
}

/// Reads the body into the window, withholding the last piece until all of it is verified.
async fn pump(mut body: Incoming, want_md5: WantMd5, window: &Window) -> Result<Digests> {
    let mut verifier = Verifier::new(body.length, body.declared, want_md5);
    let mut held: Option<Bytes> = None;
    while let Some(piece) = body.stream.next().await {
        let piece = piece?;
        if piece.is_empty() {
            continue;
        }
        verifier.update(&piece)?;
        if let Some(before) = held.replace(piece) {
            window.push(before).await;
        }
    }
    let digests = verifier.finish()?;
    window.sum().get_or_init(|| digests.crc64);
    if let Some(last) = held {
        window.push(last).await;
    }
    Ok(digests)
}

/// How one leg ended.
struct LegEnd<T> {
    member: Arc<Member>,
    target: Arc<dyn Target>,
    token: T,
    result: backend::Result<Stored>,
}

impl<T: Token> LegEnd<T> {
    fn new(
        member: Arc<Member>,
        target: Arc<dyn Target>,
        token: T,
        result: backend::Result<Stored>,
    ) -> Self {
        // From here on it is known what the backend did, whoever drops this.
        if result
            .as_ref()
            .map_or_else(|error| error.effect == Effect::None, |_| true)
        {
            token.answered();
        }
        Self {
            member,
            target,
            token,
            result,
        }
    }

    fn effect(&self) -> Effect {
        match &self.result {
            Ok(_) => Effect::Unknown,
            Err(error) => error.effect,
        }
    }
}

type LegFuture<T> = BoxFuture<'static, Result<LegEnd<T>>>;

/// Runs a leg to its end whatever becomes of the request: where the client hangs up after its last
/// byte, the backend's answer is still heard, and the attempt's bytes need not be taken for ones that
/// may yet appear. A body that was not released whole is cut, so the end is near.
fn detached<T: Token>(
    leg: impl Future<Output = Result<LegEnd<T>>> + Send + 'static,
) -> JoinHandle<Result<LegEnd<T>>> {
    tokio::spawn(leg.in_current_span())
}

/// The end of a detached leg; one that panicked panics here.
fn finished<T>(ended: std::result::Result<Result<LegEnd<T>>, JoinError>) -> Result<LegEnd<T>> {
    ended.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The runtime is going down.
        Err(_) => Err(Error::WriteUnavailable {
            tried: Tried::default(),
        }),
    })
}

/// Announces and sends at once; the last piece waits until the announcement is durable.
fn leg<T: Token>(attempt: Attempt<T>, window: &Window, length: u64) -> LegFuture<T> {
    let (gate, opened) = watch::channel(false);
    let payload = Payload {
        crc64_later: Some(Arc::clone(window.sum())),
        ..Payload::streamed(length, window.leg(opened))
    };
    Box::pin(async move {
        let Attempt {
            member,
            announce,
            target,
        } = attempt;
        let announced = async {
            let token = announce.await;
            if token.is_ok() {
                // Nobody listens any more where the backend has failed already.
                gate.send(true).ok();
            }
            drop(gate);
            token
        };
        let (token, result) = tokio::join!(announced, target.put(payload));
        Ok(LegEnd::new(member, target, token?, result))
    })
}

/// Gathers the copies that stand and the failures on the way there.
struct Collector<T> {
    wanted: usize,
    length: ByteSize,
    copies: Vec<Sent<T>>,
    tried: Tried,
}

impl<T: Token> Collector<T> {
    fn new(wanted: usize, length: u64) -> Self {
        Self {
            wanted,
            length: ByteSize(length),
            copies: Vec::new(),
            tried: Tried::default(),
        }
    }

    fn len(&self) -> usize {
        self.copies.len()
    }

    fn is_enough(&self) -> bool {
        self.copies.len() >= self.wanted
    }

    async fn another<A: Attempts<Token = T>>(&mut self, attempts: &mut A) -> Result<Attempt<T>> {
        if self.tried.0.len() < ATTEMPTS_MAX
            && let Some(attempt) = attempts.next(&self.tried).await?
        {
            return Ok(attempt);
        }
        Err(self.out_of_backends(attempts).await)
    }

    /// Takes the end of a leg whose bytes were all released: proves it, or gives it up.
    async fn take<A: Attempts<Token = T>>(
        &mut self,
        end: LegEnd<T>,
        digests: Digests,
        length: u64,
        attempts: &mut A,
    ) {
        let LegEnd {
            member,
            target,
            token,
            result,
        } = end;
        let stored = match result {
            Ok(stored) => prove(&member, &*target, stored, digests, length).await,
            Err(error) if error.effect == Effect::Unknown && may_stand(error.kind) => {
                match target.look().await {
                    Ok((size, stored)) if size == length => {
                        match prove(&member, &*target, stored, digests, length).await {
                            // What was found may be an older attempt's: only proof counts here.
                            Ok(Proven { sure: Sure::No, .. }) => Err(error),
                            proven => proven,
                        }
                    }
                    Ok(_) | Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(Proven { stored, md5, .. }) => self.copies.push(Sent {
                member,
                token,
                stored,
                md5,
            }),
            Err(error) => {
                attempts.give_up(token, error.effect).await;
                self.tried.0.push((member.name().clone(), error));
            }
        }
    }

    /// Takes the end of a leg that failed before all of its bytes were released.
    async fn lose<A: Attempts<Token = T>>(&mut self, end: LegEnd<T>, attempts: &mut A) {
        let effect = end.effect();
        attempts.give_up(end.token, effect).await;
        if let Err(error) = end.result {
            self.tried.0.push((end.member.name().clone(), error));
        }
    }

    /// Gives up what stands already, because the write as a whole fails.
    async fn fail<A: Attempts<Token = T>>(&mut self, attempts: &mut A, error: Error) -> Error {
        for copy in self.copies.drain(..) {
            attempts.give_up(copy.token, Effect::Unknown).await;
        }
        error
    }

    async fn out_of_backends<A: Attempts<Token = T>>(&mut self, attempts: &mut A) -> Error {
        let tried = std::mem::take(&mut self.tried);
        let full = !tried.0.is_empty() && tried.0.iter().all(|(_, e)| e.kind == Kind::Full);
        let error = match full {
            true => Error::NoRoom {
                wanted: self.length,
            },
            false => Error::WriteUnavailable { tried },
        };
        self.fail(attempts, error).await
    }

    async fn finish<A: Attempts<Token = T>>(
        mut self,
        attempts: &mut A,
        digests: Digests,
    ) -> Result<Delivery<T>> {
        let Some(md5) = digests
            .md5
            .or_else(|| self.copies.iter().find_map(|copy| copy.md5))
        else {
            // The probe saw entity tags that are the MD5, and replies that echo the checksum; this one
            // was otherwise.
            tracing::warn!("no backend answered with the MD5 of the bytes");
            return Err(self.out_of_backends(attempts).await);
        };
        Ok(Delivery {
            copies: self.copies,
            digests,
            etag: ETag::of_body(md5),
            tried: self.tried,
        })
    }
}

/// Whether a write that failed so, with unknown effect, is worth a look.
const fn may_stand(kind: Kind) -> bool {
    match kind {
        Kind::TimedOut | Kind::Unavailable | Kind::Throttled => true,
        Kind::NotFound
        | Kind::NoSuchUpload
        | Kind::InvalidPart
        | Kind::Precondition
        | Kind::Range
        | Kind::Full
        | Kind::Corrupt
        | Kind::PayloadCut
        | Kind::Denied
        | Kind::Rejected
        | Kind::Unsupported => false,
    }
}

/// Makes sure that the backend holds the bytes that were sent: by what its reply itself says of them, their
/// checksum or an entity tag that is their MD5, or by reading them back.
///
/// That a request with a checksum succeeded proves nothing: the reply may be that to another request.
async fn prove(
    member: &Member,
    target: &dyn Target,
    stored: Stored,
    digests: Digests,
    length: u64,
) -> backend::Result<Proven> {
    let able = member.backend().capabilities();
    let tag = stored.etag.as_ref().and_then(ETag::as_md5);
    let other_md5 = tag
        .zip(digests.md5)
        .is_some_and(|(told, ours)| told != ours);
    let other_bytes = stored.crc64.is_some_and(|told| told != digests.crc64);
    let contradicted = other_bytes || (other_md5 && able.md5_etag);
    let is_our_md5 = tag.is_some() && tag == digests.md5;
    if !contradicted && (stored.crc64.is_some() || is_our_md5) {
        let md5 = tag.filter(|_| able.md5_etag || is_our_md5);
        let verified = (stored.proof == Proof::Checksum).then_some(digests.crc64);
        let crc64 = stored.crc64.or(verified);
        return Ok(Proven {
            stored: Stored { crc64, ..stored },
            md5,
            sure: Sure::Yes,
        });
    }
    match target.read_back().await {
        Some(fetched) => prove_by_reading(member, fetched, digests, length).await,
        None => unproven(member, stored, contradicted),
    }
}

/// A part that its reply does not prove. It cannot be read; the object that it becomes is proven after
/// Complete. A part whose reply speaks of other bytes, or lacks what the replies of its backend say, may not
/// be there at all.
fn unproven(member: &Member, stored: Stored, contradicted: bool) -> backend::Result<Proven> {
    let refuse = |kind, words: &str| {
        let error = backend::Error::new(kind, Effect::Unknown, member.name(), "upload_part");
        Err(error.with_message(words))
    };
    if contradicted {
        return refuse(Kind::Corrupt, "the reply is about other bytes");
    }
    let promised = member.backend().capabilities().echoes_checksum;
    let silent = stored.proof == Proof::Checksum && stored.crc64.is_none();
    // From the second time on the MD5 is known, and was compared.
    if promised && silent && member.note_lack_of_echo() {
        return refuse(Kind::Unavailable, "the reply says nothing of the bytes");
    }
    Ok(Proven {
        stored,
        md5: None,
        sure: Sure::No,
    })
}

/// Compares what is there, after a reply that does not prove it. Nothing of that reply is kept: neither its
/// entity tag nor its version need be those of our object.
async fn prove_by_reading(
    member: &Member,
    fetched: backend::Result<Fetched>,
    digests: Digests,
    length: u64,
) -> backend::Result<Proven> {
    // What is not there now may yet appear.
    let unsure = |error: backend::Error| backend::Error {
        kind: match error.kind {
            Kind::NotFound => Kind::Unavailable,
            other => other,
        },
        effect: Effect::Unknown,
        ..error
    };
    let Fetched { head, body } = fetched.map_err(unsure)?;
    let read = read_whole(body).await.map_err(unsure)?;
    if read.length != length || read.crc64 != digests.crc64 {
        let error = backend::Error::new(Kind::Corrupt, Effect::Unknown, member.name(), "put");
        return Err(error.with_message("the bytes read back are not the bytes sent"));
    }
    let md5_etag = member.backend().capabilities().md5_etag;
    let is_theirs = |tag: &ETag| !md5_etag || tag.as_md5().is_none_or(|md5| md5 == read.md5);
    Ok(Proven {
        stored: Stored {
            etag: head.etag.filter(is_theirs),
            version: head.version,
            crc64: head.crc64.filter(|told| *told == digests.crc64),
            proof: Proof::None,
        },
        md5: Some(read.md5),
        sure: Sure::Yes,
    })
}

/// A copy that holds the right bytes, and their MD5 where proving it brought that to light.
struct Proven {
    stored: Stored,
    md5: Option<Md5>,
    sure: Sure,
}

/// Whether anything showed that the bytes are the right ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sure {
    Yes,
    No,
}

struct ReadBack {
    length: u64,
    crc64: Crc64,
    md5: Md5,
}

async fn read_whole(mut body: backend::Body) -> backend::Result<ReadBack> {
    let mut crc64 = Crc64Hasher::new();
    let mut md5 = Md5Hasher::new();
    let mut length = 0;
    while let Some(piece) = body.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        crc64.update(&piece);
        md5.update(&piece);
    }
    Ok(ReadBack {
        length,
        crc64: crc64.sum(),
        md5: md5.finish(),
    })
}
