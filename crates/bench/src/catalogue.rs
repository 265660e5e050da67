//! The catalogue alone: what it takes of a PUT, and single jobs, on both databases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::{
    BackendKey, BlobId, Clock, CopyId, Crc64, ETag, Ids, Md5, ObjectHeaders, ObjectKey,
    Precondition, SystemClock, Tags, VersionId,
};
use futures_util::future::try_join_all;
use metastore::model::{
    BackendId, BucketId, Content, Extent, NewBlob, NewCopy, NewIntent, NewVersion, Retag, Verdict,
};
use metastore::{ConnectOptions, OpenOptions, Server, Store, TlsMode};
use testbed::{Database, Durability, Postgres};

use crate::Effort;
use crate::figures::{Figure, rounded, table};
use crate::machine;

/// How many requests are at it at a time.
const CALLERS: [usize; 3] = [1, 64, 256];
/// The bytes that an object pretends to have.
const OBJECT_BYTES: u64 = 4096;
const READ_GRACE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// An intent, and the commit of a new key: what the catalogue does of a PUT.
    Put,
    /// One row of an object that is there: PutObjectTagging.
    Job,
}

struct Catalogue {
    name: &'static str,
    store: Store,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    bucket: BucketId,
    backend: BackendId,
    /// Keys that were written, over all turns.
    written: AtomicU64,
}

/// Measures both databases, and prints the table.
pub(crate) async fn run(effort: Effort) -> Result<()> {
    let folder = tempfile::tempdir_in(".").context("making a folder on this disk")?;
    let postgres = Postgres::start(Durability::Durable);
    let catalogues = [
        Arc::new(Catalogue::on_sqlite(folder.path()).await?),
        Arc::new(Catalogue::on_postgres(&postgres.database()).await?),
    ];
    let mut figures: BTreeMap<(usize, Work, usize), Figure> = BTreeMap::new();
    for turn in 0..effort.turns {
        eprintln!("turn {} of {}", turn + 1, effort.turns);
        for callers in CALLERS {
            for work in [Work::Put, Work::Job] {
                for (place, catalogue) in catalogues.iter().enumerate() {
                    let rate = catalogue.measure(work, callers, effort.turn).await?;
                    figures.entry((place, work, callers)).or_default().add(rate);
                }
            }
        }
    }
    let sync = machine::durable_append(folder.path(), effort.turn)?;
    println!(
        "{}; {}; SQLite {} with `synchronous=FULL`. To make 4 KiB at the end of a file durable takes {sync} here.\n",
        machine::describe(),
        machine::version("psql"),
        metastore::sqlite_version(),
    );
    println!("{}", show(&catalogues, &figures));
    for catalogue in catalogues {
        catalogue.store.close().await?;
    }
    Ok(())
}

/// The catalogue on SQLite alone: intents and commits, as many as callers can get, a second.
pub(crate) struct Alone {
    catalogue: Arc<Catalogue>,
}

impl Alone {
    pub(crate) async fn new(folder: &Path) -> Result<Self> {
        let catalogue = Arc::new(Catalogue::on_sqlite(folder).await?);
        Ok(Self { catalogue })
    }

    /// Writes so many keys with these names.
    pub(crate) async fn fill(&self, keys: u64, name: fn(u64) -> String) -> Result<()> {
        let next = Arc::new(AtomicU64::new(0));
        let mut running = Vec::new();
        for _ in 0..CALLERS[2] {
            let (catalogue, next) = (Arc::clone(&self.catalogue), Arc::clone(&next));
            running.push(tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= keys {
                        return anyhow::Ok(());
                    }
                    catalogue.put(name(n)).await?;
                }
            }));
        }
        for caller in running {
            caller.await.context("a caller panicked")??;
        }
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<()> {
        Ok(self.catalogue.store.close().await?)
    }

    pub(crate) async fn puts_per_second(&self, callers: usize, time: Duration) -> Result<f64> {
        self.catalogue.measure(Work::Put, callers, time).await
    }
}

fn show(catalogues: &[Arc<Catalogue>], figures: &BTreeMap<(usize, Work, usize), Figure>) -> String {
    let mut rows = Vec::new();
    for work in [Work::Put, Work::Job] {
        for (place, catalogue) in catalogues.iter().enumerate() {
            let what = match work {
                Work::Put => "whole PUTs (intent and commit)",
                Work::Job => "single jobs (tags of an object)",
            };
            let mut row = vec![what.to_owned(), catalogue.name.to_owned()];
            let of = |callers| &figures[&(place, work, callers)];
            row.extend(CALLERS.map(|callers| of(callers).show()));
            row.push(rounded(1e3 / of(CALLERS[0]).median()));
            rows.push(row);
        }
    }
    table(
        &[
            "per second",
            "catalogue",
            "1 caller",
            "64 callers",
            "256 callers",
            "ms, alone",
        ],
        &rows,
    )
}

impl Catalogue {
    async fn on_sqlite(folder: &Path) -> Result<Self> {
        let (clock, ids) = fresh();
        let options = OpenOptions {
            path: folder.join("catalogue.db"),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            read_grace: READ_GRACE,
        };
        let store = Store::open(options).await.context("opening SQLite")?;
        Self::over("SQLite", store, clock, ids).await
    }

    async fn on_postgres(database: &Database) -> Result<Self> {
        let (clock, ids) = fresh();
        let options = ConnectOptions {
            server: Server {
                hosts: vec![("127.0.0.1".into(), database.port)],
                database: database.name.clone(),
                user: Database::USER.into(),
                password: None,
                tls: TlsMode::Disable,
                ca_file: None,
                conns_max: 10,
                conns_min: 5,
                conn_lifetime: Duration::from_secs(300),
                lease: Duration::from_secs(30),
            },
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
            read_grace: READ_GRACE,
        };
        let store = Store::connect(options)
            .await
            .context("connecting to PostgreSQL")?;
        Self::over("PostgreSQL", store, clock, ids).await
    }

    async fn over(
        name: &'static str,
        store: Store,
        clock: Arc<dyn Clock>,
        ids: Arc<Ids>,
    ) -> Result<Self> {
        let buckets = store.ensure_buckets(&["bucket".parse()?]).await?;
        let backends = store.ensure_backends(&["backend".parse()?]).await?;
        Ok(Self {
            name,
            store,
            clock,
            ids,
            bucket: buckets[0].id,
            backend: backends[0].id,
            written: AtomicU64::new(0),
        })
    }

    /// How many a second, by so many callers of whom each waits for its answer.
    async fn measure(self: &Arc<Self>, work: Work, callers: usize, time: Duration) -> Result<f64> {
        // What a caller tags is there before the clock runs.
        let own = |caller: usize| format!("tagged/{caller}");
        try_join_all((0..callers).map(|caller| self.put(own(caller)))).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut running = Vec::new();
        for caller in 0..callers {
            let (catalogue, stop) = (Arc::clone(self), Arc::clone(&stop));
            running.push(tokio::spawn(async move {
                let mut done = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    match work {
                        Work::Put => {
                            let n = catalogue.written.fetch_add(1, Ordering::Relaxed);
                            catalogue.put(format!("data/{n:012}")).await?;
                        }
                        Work::Job => catalogue.tag(own(caller), done).await?,
                    }
                    done += 1;
                }
                anyhow::Ok(done)
            }));
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for caller in running {
            done += caller.await.context("a caller panicked")??;
        }
        Ok(done as f64 / begun.elapsed().as_secs_f64())
    }

    async fn put(&self, name: String) -> Result<()> {
        let key: ObjectKey = name.parse()?;
        let (copy, blob) = (CopyId::draw(&self.ids), BlobId::draw(&self.ids));
        let room = self.store.reserve(self.backend, OBJECT_BYTES).await?;
        let backend_key = BackendKey::new(&format!("bucket/{name}~{copy}"))
            .context("a key that no backend takes")?;
        let intent = NewIntent {
            copy,
            blob,
            key: backend_key,
        };
        let intent = self.store.open_intent(intent, room).await?;
        let etag = ETag::of_body(Md5::of(name.as_bytes()));
        let version = NewVersion {
            bucket: self.bucket,
            key,
            version: VersionId::draw(&self.ids),
            size: OBJECT_BYTES,
            etag: etag.clone(),
            last_modified: self.clock.now(),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
            parts: Vec::new(),
            content: Content::Written {
                blobs: vec![NewBlob {
                    blob,
                    size: OBJECT_BYTES,
                    crc64: Some(Crc64(7)),
                    copies: vec![NewCopy {
                        copy,
                        etag: Some(etag),
                        version: None,
                        crc64: Some(Crc64(7)),
                    }],
                }],
                extents: vec![Extent {
                    blob,
                    offset: 0,
                    length: OBJECT_BYTES,
                }],
            },
            precondition: Precondition::None,
        };
        match self.store.commit(version, vec![intent]).await.0? {
            Verdict::Committed { .. } => Ok(()),
            other => bail!("{name} was not committed: {other:?}"),
        }
    }

    async fn tag(&self, name: String, turn: u64) -> Result<()> {
        let tags = Tags::new(vec![("turn".to_owned(), turn.to_string())])
            .context("tags that nobody takes")?;
        let retag = Retag {
            bucket: self.bucket,
            key: name.parse()?,
            tags,
        };
        match self.store.retag(retag).await? {
            true => Ok(()),
            false => bail!("{name} is gone"),
        }
    }
}

fn fresh() -> (Arc<dyn Clock>, Arc<Ids>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Arc::new(Ids::new(Arc::clone(&clock)));
    (clock, ids)
}
