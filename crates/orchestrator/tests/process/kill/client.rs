//! One client: keys of its own, one request at a time, and a memory of what was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use backend::{
    BackendKey, DeleteTarget, Kind, ObjectBackend as _, PartFact, Payload, PutMeta, S3Backend,
    Stored,
};
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use super::fuse::{Event, Fuse, Verb};
use crate::support::content::{Content, ContentExt as _};

/// Keys of one client.
const KEYS: usize = 6;
/// The smallest part but the last, in bytes.
const PART_BYTES_MIN: u64 = 5 << 20;
/// Between two attempts at a Complete that the server is taking up by itself.
const COMPLETE_AGAIN: Duration = Duration::from_millis(50);
/// Such attempts.
const COMPLETE_TRIES_MAX: usize = 400;

/// What is known of one key. `None` stands for no object.
struct Slot {
    key: BackendKey,
    /// The last acknowledged state.
    sure: Option<Content>,
    /// What requests without an answer may have made of it since.
    maybe: Vec<Option<Content>>,
    /// A Complete without an answer.
    completing: Option<(String, Vec<PartFact>, Content)>,
}

impl Slot {
    fn acknowledge(&mut self, state: Option<Content>) {
        self.sure = state;
        self.maybe.clear();
    }
}

pub(super) struct Client {
    rng: StdRng,
    slots: Vec<Slot>,
}

type Outcome = backend::Result<()>;

impl Client {
    pub(super) fn new(number: u64, seed: u64) -> Self {
        let names = [
            "plain",
            "dir/file.txt",
            "a//b",
            "../up",
            "per%2Fcent",
            "ü/\u{1}x",
        ];
        let slots = names.iter().take(KEYS).map(|name| Slot {
            key: BackendKey::new(&format!("c{number}/{name}")).unwrap(),
            sure: None,
            maybe: Vec::new(),
            completing: None,
        });
        Self {
            rng: StdRng::seed_from_u64(seed),
            slots: slots.collect(),
        }
    }

    /// Sends requests until the process is dead. Returns what failed before.
    pub(super) async fn work(&mut self, backend: &S3Backend, fuse: &Arc<Fuse>) -> Option<String> {
        while !fuse.blown() {
            let place = self.rng.random_range(0..self.slots.len());
            let outcome = match self.rng.random_range(0..100) {
                0..25 => self.put_small(place, backend, fuse).await,
                25..45 => self.put_streamed(place, backend, fuse).await,
                45..60 => self.get(place, backend, fuse).await,
                60..72 => self.delete(place, backend, fuse).await,
                72..80 => self.delete_many(backend, fuse).await,
                _ => self.multipart(place, backend, fuse).await,
            };
            if let Err(error) = outcome
                && !fuse.blown()
            {
                let key = &self.slots[place].key;
                return Some(format!("{key}: {}", base::report(&error)));
            }
        }
        None
    }

    fn draw(&mut self, lengths: std::ops::Range<u64>) -> Content {
        Content::new(self.rng.random(), self.rng.random_range(lengths))
    }

    async fn put_small(&mut self, place: usize, backend: &S3Backend, fuse: &Fuse) -> Outcome {
        let content = self.draw(0..70_000);
        let slot = &mut self.slots[place];
        slot.maybe.push(Some(content));
        fuse.event(Event::Begin(Verb::Put));
        let payload = Payload::from_bytes(content.bytes());
        backend.put(&slot.key, &PutMeta::default(), payload).await?;
        slot.acknowledge(Some(content));
        fuse.event(Event::Acknowledge(Verb::Put));
        Ok(())
    }

    async fn put_streamed(
        &mut self,
        place: usize,
        backend: &S3Backend,
        fuse: &Arc<Fuse>,
    ) -> Outcome {
        let content = self.draw(65_000..3_000_000);
        let slot = &mut self.slots[place];
        slot.maybe.push(Some(content));
        fuse.event(Event::Begin(Verb::Put));
        let payload = counted(content, fuse);
        backend.put(&slot.key, &PutMeta::default(), payload).await?;
        slot.acknowledge(Some(content));
        fuse.event(Event::Acknowledge(Verb::Put));
        Ok(())
    }

    async fn get(&self, place: usize, backend: &S3Backend, fuse: &Fuse) -> Outcome {
        let slot = &self.slots[place];
        fuse.event(Event::Begin(Verb::Get));
        let fetched = match (backend.get(&slot.key, None, None).await, slot.sure) {
            (Ok(fetched), Some(content)) => (fetched, content),
            (Err(error), None) if error.kind == Kind::NotFound => return Ok(()),
            (Err(error), _) => return Err(error),
            (Ok(_), None) => panic!("{} reads although it was deleted", slot.key),
        };
        let (fetched, content) = fetched;
        let checked = content.check(fetched.body).await;
        assert!(checked.is_ok() || fuse.blown(), "{}: {checked:?}", slot.key);
        fuse.event(Event::Acknowledge(Verb::Get));
        Ok(())
    }

    async fn delete(&mut self, place: usize, backend: &S3Backend, fuse: &Fuse) -> Outcome {
        let slot = &mut self.slots[place];
        slot.maybe.push(None);
        fuse.event(Event::Begin(Verb::Delete));
        let targets = [target(&slot.key)];
        backend.delete(&targets).await.pop().unwrap()?;
        slot.acknowledge(None);
        fuse.event(Event::Acknowledge(Verb::Delete));
        Ok(())
    }

    async fn delete_many(&mut self, backend: &S3Backend, fuse: &Fuse) -> Outcome {
        let first = self.rng.random_range(0..self.slots.len() - 1);
        let count = self.rng.random_range(2..=4).min(self.slots.len() - first);
        let slots = &mut self.slots[first..first + count];
        slots.iter_mut().for_each(|slot| slot.maybe.push(None));
        fuse.event(Event::Begin(Verb::DeleteMany));
        let targets: Vec<_> = slots.iter().map(|slot| target(&slot.key)).collect();
        for (slot, outcome) in slots.iter_mut().zip(backend.delete(&targets).await) {
            outcome?;
            slot.acknowledge(None);
        }
        fuse.event(Event::Acknowledge(Verb::DeleteMany));
        Ok(())
    }

    async fn multipart(&mut self, place: usize, backend: &S3Backend, fuse: &Arc<Fuse>) -> Outcome {
        // One upload in four has two parts: the first of them is large by the protocol's rules.
        let first = match self.rng.random_range(0..4) {
            0 => PART_BYTES_MIN,
            _ => 0,
        };
        let content = self.draw(first + 1..first + 300_000);
        let slot = &mut self.slots[place];
        fuse.event(Event::Begin(Verb::Create));
        let upload = backend
            .create_upload(&slot.key, &PutMeta::default())
            .await?;
        fuse.event(Event::Acknowledge(Verb::Create));
        let mut parts = Vec::new();
        let bounds = [(0, first), (first, content.length - first)];
        for (number, (offset, length)) in (1..).zip(bounds.into_iter().filter(|b| b.1 > 0)) {
            fuse.event(Event::Begin(Verb::Part));
            let payload = counted(content.part(offset, length), fuse);
            let meta = PutMeta::default();
            let sent = backend.upload_part(&slot.key, &upload, number, &meta, payload);
            let Stored { etag, crc64, .. } = sent.await?;
            let etag = etag.expect("a part has an entity tag");
            parts.push(PartFact {
                number,
                etag,
                crc64,
            });
            fuse.event(Event::Acknowledge(Verb::Part));
        }
        slot.maybe.push(Some(content));
        slot.completing = Some((upload.clone(), parts.clone(), content));
        fuse.event(Event::Begin(Verb::Complete));
        backend.complete_upload(&slot.key, &upload, &parts).await?;
        slot.completing = None;
        slot.acknowledge(Some(content));
        fuse.event(Event::Acknowledge(Verb::Complete));
        Ok(())
    }

    /// Reads everything back after a crash and learns which of the possible states came true.
    pub(super) async fn check(&mut self, backend: &S3Backend) {
        for slot in &mut self.slots {
            let found = read(backend, slot).await;
            slot.sure = found;
            slot.maybe.clear();
            if let Some((upload, parts, content)) = slot.completing.take() {
                // It may still come true: the server takes up what it had frozen. The client asks.
                if complete_again(backend, &slot.key, &upload, &parts).await {
                    slot.sure = Some(content);
                }
                assert_eq!(read(backend, slot).await, slot.sure, "{}", slot.key);
            }
        }
    }

    pub(super) async fn delete_all(&mut self, backend: &S3Backend) {
        let targets: Vec<_> = self.slots.iter().map(|slot| target(&slot.key)).collect();
        for (slot, outcome) in self.slots.iter_mut().zip(backend.delete(&targets).await) {
            outcome.unwrap();
            slot.acknowledge(None);
        }
    }
}

/// Reads a key whole; it has to be one of the states that it may be in.
async fn read(backend: &S3Backend, slot: &Slot) -> Option<Content> {
    let states: Vec<_> = [slot.sure]
        .into_iter()
        .chain(slot.maybe.iter().copied())
        .collect();
    let fetched = match backend.get(&slot.key, None, None).await {
        Ok(fetched) => fetched,
        Err(error) => {
            assert_eq!(
                error.kind,
                Kind::NotFound,
                "{}: {}",
                slot.key,
                base::report(&error)
            );
            assert!(
                states.contains(&None),
                "{} is gone, although {:?} was acknowledged",
                slot.key,
                slot.sure
            );
            return None;
        }
    };
    let size = fetched.head.size;
    let mut body = fetched.body;
    let mut candidates: Vec<_> = states
        .iter()
        .copied()
        .flatten()
        .filter(|state| state.length == size)
        .collect();
    let mut offset = 0;
    while let Some(piece) = futures_util::StreamExt::next(&mut body).await {
        let piece = piece.unwrap_or_else(|error| panic!("{}: {}", slot.key, base::report(&error)));
        candidates.retain(|content| content.has(offset, &piece));
        offset += piece.len() as u64;
    }
    assert_eq!(offset, size, "{} is not whole", slot.key);
    let found = candidates.first();
    assert!(
        found.is_some(),
        "{} holds {size} bytes of none of {states:?}",
        slot.key
    );
    found.copied()
}

/// Whether the upload becomes, or has become, the object.
async fn complete_again(
    backend: &S3Backend,
    key: &BackendKey,
    upload: &str,
    parts: &[PartFact],
) -> bool {
    for _ in 0..COMPLETE_TRIES_MAX {
        match backend.complete_upload(key, upload, parts).await {
            Ok(_) => return true,
            // A worker is at it.
            Err(error) if error.kind == Kind::Throttled => sleep(COMPLETE_AGAIN).await,
            Err(error) => panic!("{key}: Complete after a crash: {}", base::report(&error)),
        }
    }
    panic!("{key}: Complete after a crash does not come to an end");
}

fn target(key: &BackendKey) -> DeleteTarget {
    DeleteTarget {
        key: key.clone(),
        version: None,
    }
}

/// A body that tells the fuse of every piece.
fn counted(content: Content, fuse: &Arc<Fuse>) -> Payload {
    let fuse = Arc::clone(fuse);
    let pieces = content.pieces(0).map(move |piece| {
        fuse.event(Event::Bytes);
        Ok(piece)
    });
    Payload::streamed(content.length, Box::pin(stream::iter(pieces)))
}
