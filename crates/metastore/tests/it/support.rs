//! A database for a test, and short ways to write to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{
    BackendKey, BlobId, Clock, CopyId, Crc64, ETag, Ids, ManualClock, ObjectHeaders, ObjectKey,
    Precondition, Tags, VersionId,
};
use metastore::model::{
    BackendId, BucketId, Content, Extent, NewBlob, NewCopy, NewIntent, NewVersion, ReadPlan,
    Removal, Room, Verdict,
};
use metastore::{ConnectOptions, Intent, OpenOptions, Result, Server, Store, TlsMode, Tuning};
use tempfile::TempDir;
use testbed::{Database, PgBouncer, Postgres};

use crate::proxy::Proxy;

pub(crate) const READ_GRACE: Duration = Duration::from_secs(60);
pub(crate) const START_MS: i64 = 1_700_000_000_000;

/// Where a catalogue is.
enum Place {
    Files,
    Postgres {
        server: Database,
        /// The same, as the program reaches it.
        way: Database,
    },
}

/// How long an instance on PostgreSQL may be silent.
const LEASE: Duration = Duration::from_secs(30);

/// An empty place for a catalogue, with a clock and identifiers that repeat.
pub(crate) struct Db {
    place: Place,
    dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ids: Arc<Ids>,
}

impl Db {
    pub(crate) fn sqlite() -> Self {
        Self::seeded(Place::Files, 1)
    }

    pub(crate) fn postgres() -> Self {
        Self::postgres_seeded(1)
    }

    pub(crate) fn sqlite_seeded(seed: u64) -> Self {
        Self::seeded(Place::Files, seed)
    }

    pub(crate) fn postgres_seeded(seed: u64) -> Self {
        let server = Postgres::shared().database();
        let way = server.clone();
        Self::seeded(Place::Postgres { server, way }, seed)
    }

    /// Through a pooler that hands out connections by transaction.
    pub(crate) fn pgbouncer() -> Self {
        let server = Postgres::shared().database();
        let way = PgBouncer::shared().before(&server);
        Self::seeded(Place::Postgres { server, way }, 1)
    }

    /// Through connections that are cut while a write is on its way, and again before it is answered:
    /// whatever is written, and whoever asks, must not notice.
    pub(crate) async fn cut() -> Self {
        let server = Postgres::shared().database();
        let way = Proxy::cutting(&server).await.to(&server);
        Self::seeded(Place::Postgres { server, way }, 1)
    }

    /// Whether several instances may share it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.place, Place::Postgres { .. })
    }

    /// The database on PostgreSQL.
    pub(crate) fn database(&self) -> &Database {
        match &self.place {
            Place::Files => panic!("this catalogue is in files"),
            Place::Postgres { server, .. } => server,
        }
    }

    /// Another instance over the same catalogue on PostgreSQL, reached in this way.
    pub(crate) async fn instance(&self, way: &Database) -> Open<'_> {
        let store = Store::connect(self.connect_options(way)).await.unwrap();
        self.set_up(store).await.unwrap()
    }

    fn seeded(place: Place, seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at(START_MS));
        let ids = Arc::new(Ids::seeded(Arc::clone(&clock) as Arc<dyn Clock>, seed));
        Self {
            place,
            dir: TempDir::new().unwrap(),
            clock,
            ids,
        }
    }

    /// How an instance on PostgreSQL connects.
    pub(crate) fn connect_options(&self, database: &Database) -> ConnectOptions {
        ConnectOptions {
            server: Server {
                hosts: vec![("127.0.0.1".into(), database.port)],
                database: database.name.clone(),
                user: Database::USER.into(),
                password: None,
                tls: TlsMode::Disable,
                ca_file: None,
                conns_max: 6,
                conns_min: 1,
                conn_lifetime: Duration::from_secs(300),
                lease: LEASE,
            },
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ids: Arc::clone(&self.ids),
            read_grace: READ_GRACE,
        }
    }

    /// Every instance has been silent for longer than its lease.
    pub(crate) fn silence(database: &Database) {
        database.run(
            "DO $$ BEGIN IF to_regclass('instances') IS NOT NULL THEN
                 UPDATE instances SET heartbeat = 0;
             END IF; END $$",
        );
    }

    /// Runs a statement on the tables, outside of the program.
    pub(crate) fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        match &self.place {
            Place::Files => {
                let conn = rusqlite::Connection::open(self.path()).unwrap();
                conn.query_row(&sql, [], |row| row.get(0)).unwrap()
            }
            Place::Postgres { server, .. } => server.run(&sql).parse().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("catalogue.db")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The files as `kill -9` would leave them right now: nothing closed, nothing tidied.
    pub(crate) fn killed(&self) -> Self {
        let dir = TempDir::new().unwrap();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        Self {
            place: Place::Files,
            dir,
            clock: Arc::clone(&self.clock),
            ids: Arc::clone(&self.ids),
        }
    }

    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            path: self.path(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ids: Arc::clone(&self.ids),
            read_grace: READ_GRACE,
        }
    }

    /// Opens it with one bucket and two backends.
    pub(crate) async fn open(&self) -> Open<'_> {
        self.open_tuned(Tuning::default()).await.unwrap()
    }

    pub(crate) async fn open_tuned(&self, tuning: Tuning) -> Result<Open<'_>> {
        let store = match &self.place {
            Place::Files => Store::open_tuned(self.options(), tuning).await?,
            Place::Postgres { server, way } => {
                // The instance before is gone, as far as anybody can tell.
                Self::silence(server);
                Store::connect(self.connect_options(way)).await?
            }
        };
        self.set_up(store).await
    }

    pub(crate) async fn set_up(&self, store: Store) -> Result<Open<'_>> {
        let bucket = store.ensure_buckets(&["bucket".parse().unwrap()]).await?[0].id;
        let names = ["one".parse().unwrap(), "two".parse().unwrap()];
        let backends = store
            .ensure_backends(&names)
            .await?
            .iter()
            .map(|row| row.id)
            .collect();
        Ok(Open {
            db: self,
            store,
            bucket,
            backends,
        })
    }
}

/// An open catalogue.
pub(crate) struct Open<'a> {
    pub(crate) db: &'a Db,
    pub(crate) store: Store,
    pub(crate) bucket: BucketId,
    pub(crate) backends: Vec<BackendId>,
}

pub(crate) fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

impl Open<'_> {
    pub(crate) fn one(&self) -> BackendId {
        self.backends[0]
    }

    pub(crate) fn two(&self) -> BackendId {
        self.backends[1]
    }

    pub(crate) fn room(&self, backend: BackendId) -> Room {
        self.store.room(backend)
    }

    pub(crate) fn copy(&self) -> CopyId {
        CopyId::draw(&self.db.ids)
    }

    /// An intent for a fresh blob.
    pub(crate) async fn intent(&self, backend: BackendId, bytes: u64) -> Result<(BlobId, Intent)> {
        let blob = BlobId::draw(&self.db.ids);
        Ok((blob, self.intent_for(blob, backend, bytes).await?))
    }

    /// An intent for a blob that there may be already.
    pub(crate) async fn intent_for(
        &self,
        blob: BlobId,
        backend: BackendId,
        bytes: u64,
    ) -> Result<Intent> {
        let copy = self.copy();
        let room = self.store.reserve(backend, bytes).await?;
        let backend_key = BackendKey::new(&format!("bucket/key~{copy}")).unwrap();
        let new = NewIntent {
            copy,
            blob,
            key: backend_key,
        };
        self.store.open_intent(new, room).await
    }

    /// A version of one blob of `size` bytes, written under these intents.
    pub(crate) fn version(
        &self,
        name: &str,
        size: u64,
        blob: BlobId,
        intents: &[Intent],
    ) -> NewVersion {
        let copies = intents.iter().map(|intent| stored(intent.copy())).collect();
        let version = VersionId::draw(&self.db.ids);
        NewVersion {
            bucket: self.bucket,
            key: key(name),
            version,
            size,
            etag: ETag::new(&version.to_string()),
            last_modified: self.db.clock.now(),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
            parts: Vec::new(),
            content: Content::Written {
                blobs: vec![NewBlob {
                    blob,
                    size,
                    crc64: Some(Crc64(7)),
                    copies,
                }],
                extents: vec![Extent {
                    blob,
                    offset: 0,
                    length: size,
                }],
            },
            precondition: Precondition::None,
        }
    }

    /// Writes a key to one backend; the version.
    pub(crate) async fn put(&self, backend: BackendId, name: &str, size: u64) -> NewVersion {
        let (verdict, version) = self.put_if(backend, name, size, Precondition::None).await;
        assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
        version
    }

    pub(crate) async fn put_if(
        &self,
        backend: BackendId,
        name: &str,
        size: u64,
        precondition: Precondition,
    ) -> (Verdict, NewVersion) {
        let (blob, intent) = self.intent(backend, size).await.unwrap();
        let intents = vec![intent];
        let mut version = self.version(name, size, blob, &intents);
        version.precondition = precondition;
        let (verdict, left) = self.store.commit(version.clone(), intents).await;
        let verdict = verdict.unwrap();
        let committed = matches!(verdict, Verdict::Committed { .. });
        assert_eq!(left.is_empty(), committed);
        for intent in left {
            self.store.abandon_intent(intent).await.unwrap();
        }
        (verdict, version)
    }

    pub(crate) async fn plan(&self, name: &str) -> Option<ReadPlan> {
        self.store.plan(self.bucket, &key(name)).await.unwrap()
    }

    pub(crate) fn removal(&self, name: &str) -> Removal {
        Removal {
            bucket: self.bucket,
            key: key(name),
            precondition: Precondition::None,
        }
    }

    /// Promise 4, to the byte.
    pub(crate) async fn check(&self) {
        let verification = self.store.verify().await.unwrap();
        assert_eq!(verification.contradictions, Vec::<String>::new());
        for sums in &verification.backends {
            assert!(sums.exact(), "{sums:?}");
            let room = self.room(sums.backend);
            assert_eq!(
                (room.used, room.orphan, room.reserved),
                (sums.used.0, sums.orphan.0, sums.admitted)
            );
        }
    }
}

/// What a backend says of a copy.
pub(crate) fn stored(copy: CopyId) -> NewCopy {
    NewCopy {
        copy,
        etag: Some(ETag::new("backend")),
        version: Some("v1".into()),
        crc64: None,
    }
}
