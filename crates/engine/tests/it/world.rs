//! A small world: an engine over in-memory backends that fail when told to, a catalogue in a
//! temporary directory, a clock that stands still.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use backend::faulty::{Faults, FaultyBackend};
use backend::memory::{MemoryOptions, Versions};
use backend::{MARKER_KEY, MemoryBackend, ObjectBackend};
use base::{
    BackendName, BucketName, ByteSize, Clock, Conditions, Ids, ManualClock, ObjectHeaders,
    ObjectKey, Precondition, Tags,
};
use bytes::Bytes;
use engine::catalogue::{BucketId, Known};
use engine::{
    BackendKind, BackendSettings, CataloguePlace, CustomBackend, Engine, Incoming, PutRequest,
    Quiet, ReadRequest, Selection, Server, Settings, StartError, TlsMode, UsageLimits, Written,
};
use futures_util::StreamExt;
use tempfile::TempDir;
use testbed::{Database, Postgres};

/// One backend of the world: what it really holds, and the hand on its failures.
pub(crate) struct Place {
    pub(crate) name: BackendName,
    pub(crate) memory: Arc<MemoryBackend>,
    pub(crate) faults: Faults,
    pub(crate) quota: Option<u64>,
}

pub(crate) struct World {
    pub(crate) places: Vec<Place>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) settings: Settings,
    /// The database of the catalogue, where it is on a server.
    database: Option<Database>,
    _directory: TempDir,
}

impl World {
    /// A world with one backend per quota.
    pub(crate) fn new(quotas: &[Option<u64>]) -> Self {
        Self::seeded(quotas, 0)
    }

    /// A world whose backends keep versions.
    pub(crate) fn versioned(quotas: &[Option<u64>]) -> Self {
        let options = MemoryOptions {
            versions: Versions::On,
            ..MemoryOptions::default()
        };
        Self::with_options(quotas, 0, options)
    }

    pub(crate) fn seeded(quotas: &[Option<u64>], seed: u64) -> Self {
        Self::with_options(quotas, seed, MemoryOptions::default())
    }

    fn with_options(quotas: &[Option<u64>], seed: u64, options: MemoryOptions) -> Self {
        // A restart is not a power cut: the catalogue may live in memory, where syncs cost nothing.
        let memory = TempDir::new_in("/dev/shm");
        let directory = memory.or_else(|_| TempDir::new()).unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let shared: Arc<dyn Clock> = clock.clone();
        let place = |(number, quota): (usize, &Option<u64>)| {
            let name: BackendName = format!("b{number}").parse().unwrap();
            let memory = Arc::new(MemoryBackend::with_options(
                name.clone(),
                options,
                Arc::clone(&shared),
            ));
            let faults = Faults::seeded(seed * 31 + number as u64, backend::faulty::Rates::NONE);
            Place {
                name,
                memory,
                faults,
                quota: *quota,
            }
        };
        let places: Vec<_> = quotas.iter().enumerate().map(place).collect();
        let mut settings = Settings::new(directory.path().join("catalogue.db"));
        settings.buckets = vec![
            ("photos".parse().unwrap(), None),
            ("logs".parse().unwrap(), None),
        ];
        settings.backends = places.iter().map(Place::settings).collect();
        Self {
            places,
            ids: Arc::new(Ids::seeded(shared, seed)),
            clock,
            settings,
            database: None,
            _directory: directory,
        }
    }

    /// The same with its catalogue on a server; what waits then waits in real time.
    pub(crate) fn on_postgres(quotas: &[Option<u64>], seed: u64) -> Self {
        let mut world = Self::seeded(quotas, seed);
        let database = Postgres::shared().database();
        world.settings.catalogue = CataloguePlace::Server(Box::new(Server {
            hosts: vec![("127.0.0.1".into(), database.port)],
            database: database.name.clone(),
            user: Database::USER.into(),
            password: None,
            tls: TlsMode::Disable,
            ca_file: None,
            conns_max: 4,
            conns_min: 1,
            conn_lifetime: Duration::from_secs(300),
            lease: Duration::from_secs(30),
        }));
        world.database = Some(database);
        world
    }

    /// Whether time is what the test says.
    pub(crate) fn time_is_paused(&self) -> bool {
        self.database.is_none()
    }

    /// Who was killed has been silent for longer than its lease.
    pub(crate) fn outlive_leases(&self) {
        if let Some(database) = &self.database {
            database.run("UPDATE instances SET heartbeat = 0");
        }
    }

    /// The file of the catalogue.
    pub(crate) fn file(&self) -> &std::path::Path {
        match &self.settings.catalogue {
            CataloguePlace::File(path) => path,
            CataloguePlace::Server(_) => panic!("this catalogue is not in files"),
        }
    }

    pub(crate) async fn start(&self) -> Result<Engine, StartError> {
        loop {
            let clock: Arc<dyn Clock> = self.clock.clone();
            let started = Engine::start(
                self.settings.clone(),
                clock,
                self.ids.clone(),
                Arc::new(Quiet),
            );
            match started.await {
                // An engine that was dropped lets go of its catalogue a moment later.
                Err(StartError::Catalogue(engine::CatalogueError::InUse { .. })) => {
                    tokio::task::yield_now().await;
                }
                other => return other,
            }
        }
    }

    pub(crate) async fn engine(&self) -> Engine {
        self.start().await.unwrap()
    }

    /// Lets every delayed thing come due: late effects land, hours pass, workers run.
    pub(crate) async fn quiesce(&self, engine: &Engine) {
        for _ in 0..4 {
            for place in &self.places {
                place.faults.land().await;
            }
            // On paused time this ends when nothing else can run, the catalogue's threads included.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.clock.advance_ms(2 * 3600 * 1000);
            engine.settle(20).await;
        }
    }

    /// The promises of DESIGN.md section 1 that hold at every moment; a sentence where one is broken.
    pub(crate) async fn check(&self, engine: &Engine) -> Result<(), String> {
        let store = engine.store();
        let verification = store.verify().await.map_err(|error| error.to_string())?;
        if !verification.contradictions.is_empty() {
            return Err(format!("contradictions: {:?}", verification.contradictions));
        }
        for sums in &verification.backends {
            if !sums.exact() {
                return Err(format!("sums are not exact: {sums:?}"));
            }
        }
        for status in engine
            .status()
            .await
            .map_err(|error| error.to_string())?
            .backends
        {
            let room = status.room;
            if room
                .limit
                .is_some_and(|limit| room.used + room.orphan + room.reserved > limit)
            {
                return Err(format!("over quota: {} {room:?}", status.name));
            }
        }
        for (row, place) in store
            .backends()
            .await
            .map_err(|e| e.to_string())?
            .iter()
            .zip(&self.places)
        {
            assert_eq!(row.name, place.name);
            for key in place.memory.keys() {
                let ours = key == MARKER_KEY || key.starts_with(".s3o/probe/");
                let known = store
                    .known_key(row.id, &key)
                    .await
                    .map_err(|error| error.to_string())?;
                if !ours && known == Known::No {
                    return Err(format!("{key} on {} is not accounted for", place.name));
                }
            }
            for upload in place.memory.uploads() {
                if upload.key.starts_with(".s3o/probe/") {
                    continue;
                }
                let known = store
                    .known_key(row.id, &upload.key)
                    .await
                    .map_err(|e| e.to_string())?;
                if known == Known::No {
                    return Err(format!("upload {} is not accounted for", upload.key));
                }
            }
        }
        for row in store
            .locations(None, 100_000)
            .await
            .map_err(|error| error.to_string())?
        {
            let backends = store.backends().await.map_err(|error| error.to_string())?;
            let name = &backends
                .iter()
                .find(|b| b.id == row.copy.backend)
                .unwrap()
                .name;
            let place = self
                .places
                .iter()
                .find(|place| place.name == *name)
                .unwrap();
            let held = place.memory.object(row.copy.key.as_str());
            let size = held.map(|object| object.bytes.len() as u64);
            if size != Some(row.copy.stored_bytes) {
                return Err(format!("row without its bytes: {row:?} holds {size:?}"));
            }
        }
        Ok(())
    }
}

impl Place {
    fn settings(&self) -> BackendSettings {
        let faulty = FaultyBackend::new(
            self.memory.clone() as Arc<dyn ObjectBackend>,
            self.faults.clone(),
        );
        BackendSettings {
            name: self.name.clone(),
            kind: BackendKind::Custom(CustomBackend(Arc::new(faulty))),
            quota: self.quota.map(ByteSize),
            max_object_size: None,
            body_idle_timeout: Duration::from_secs(30),
            calls_max: 64,
            usage_limits: UsageLimits::default(),
        }
    }
}

pub(crate) fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

pub(crate) fn bucket(engine: &Engine, name: &str) -> BucketId {
    engine
        .bucket(&name.parse::<BucketName>().unwrap())
        .unwrap()
        .id
}

pub(crate) fn photos(engine: &Engine) -> BucketId {
    bucket(engine, "photos")
}

/// `length` bytes that depend on the seed.
pub(crate) fn bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(byte)
        .take(length)
        .collect::<Vec<u8>>()
        .into()
}

/// A body in pieces, as a connection brings it.
pub(crate) fn body(bytes: &Bytes, piece: usize) -> Incoming {
    let pieces: Vec<_> = (0..bytes.len())
        .step_by(piece.max(1))
        .map(|start| Ok(bytes.slice(start..(start + piece).min(bytes.len()))))
        .collect();
    Incoming {
        stream: Box::pin(futures_util::stream::iter(pieces)),
        ..Incoming::from_bytes(bytes.clone())
    }
}

pub(crate) fn put_request(bucket: BucketId, name: &str) -> PutRequest {
    PutRequest {
        bucket,
        key: key(name),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        precondition: Precondition::None,
    }
}

pub(crate) async fn put(engine: &Engine, name: &str, content: &Bytes) -> engine::Result<Written> {
    engine
        .put(put_request(photos(engine), name), body(content, 16 << 10))
        .await
}

pub(crate) fn read_request(bucket: BucketId, name: &str) -> ReadRequest {
    ReadRequest {
        bucket,
        key: key(name),
        selection: Selection::All,
        conditions: Conditions::default(),
    }
}

pub(crate) async fn read(engine: &Engine, request: &ReadRequest) -> engine::Result<Bytes> {
    let reading = engine.read(request).await?;
    let length = reading.chosen.range.length;
    let mut body = reading.body;
    let mut all = Vec::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece?);
    }
    assert_eq!(
        all.len() as u64,
        length,
        "a body never ends cleanly before its length"
    );
    Ok(all.into())
}

pub(crate) async fn get(engine: &Engine, name: &str) -> engine::Result<Bytes> {
    read(engine, &read_request(photos(engine), name)).await
}

/// Polls a future at most so often, then drops it, as a client that hangs up does.
pub(crate) async fn hang_up_after<F: Future>(polls: u32, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
