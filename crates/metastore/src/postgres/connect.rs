//! Sessions: opened to the first host that takes writes and belongs to our cluster, and the pool of
//! those that look things up.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, info, warn};

use crate::Result;
use crate::error::DatabaseError;
use crate::fault::Fault;
use crate::postgres::{Server, TlsMode, tls};

/// How long a host may take to answer before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a lookup waits for a connection that others use.
const POOL_WAIT: Duration = Duration::from_secs(10);
/// How long any statement may take. Listings and lookups are short; a batch waits for locks.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with what is known of it.
pub(crate) struct Session {
    client: Client,
    born: Instant,
}

/// A statement's parameters with their types, which are named so that nothing has to be prepared.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

impl Session {
    /// One flight, without a named statement.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &Params<'_>,
    ) -> std::result::Result<Vec<Row>, DatabaseError> {
        match timeout(STATEMENT_TIMEOUT, self.client.query_typed(sql, params)).await {
            Ok(rows) => Ok(rows?),
            Err(_) => Err(DatabaseError::Connection(format!(
                "no answer within {} seconds",
                STATEMENT_TIMEOUT.as_secs()
            ))),
        }
    }

    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(super) fn is_usable(&self, lifetime: Duration) -> bool {
        !self.client.is_closed() && self.born.elapsed() < lifetime
    }
}

/// Opens sessions.
pub(crate) struct Connector {
    hosts: Vec<Config>,
    names: Vec<String>,
    tls: MakeRustlsConnect,
    lifetime: Duration,
    /// The host that the last session went to.
    current: AtomicUsize,
    /// The cluster that the catalogue lies in, once it is known.
    cluster: OnceLock<String>,
}

impl Connector {
    pub(crate) fn new(server: &Server) -> Result<Self> {
        let config = |(host, port): &(String, u16)| {
            let mut config = Config::new();
            config
                .host(host)
                .port(*port)
                .dbname(&server.database)
                .user(&server.user)
                .application_name("s3-orchestrator")
                .connect_timeout(CONNECT_TIMEOUT)
                .ssl_mode(match server.tls {
                    TlsMode::Disable => SslMode::Disable,
                    TlsMode::Prefer => SslMode::Prefer,
                    TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
                });
            if let Some(password) = &server.password {
                config.password(password.reveal());
            }
            config
        };
        Ok(Self {
            hosts: server.hosts.iter().map(config).collect(),
            names: server
                .hosts
                .iter()
                .map(|(host, port)| format!("{host}:{port}"))
                .collect(),
            tls: tls::connector(server.tls, server.ca_file.as_deref())?,
            lifetime: server.conn_lifetime,
            current: AtomicUsize::new(0),
            cluster: OnceLock::new(),
        })
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The cluster that the first session went to.
    pub(super) fn cluster(&self) -> &str {
        self.cluster.get().map_or("", String::as_str)
    }

    /// A session to the first host that serves.
    pub(crate) async fn connect(&self) -> std::result::Result<Session, DatabaseError> {
        let mut failed = None;
        for (n, config) in self.hosts.iter().enumerate() {
            match self.try_host(config).await {
                Ok(session) => {
                    let before = self.current.swap(n, Ordering::AcqRel);
                    if before != n {
                        info!(
                            from = self.names[before],
                            to = self.names[n],
                            "catalogue connected through another host"
                        );
                    }
                    return Ok(session);
                }
                Err(error) => {
                    if self.hosts.len() > 1 {
                        debug!(host = self.names[n], error = %base::report(&error), "could not connect to a host of the catalogue");
                    }
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| DatabaseError::Connection("no host is named".into())))
    }

    async fn try_host(&self, config: &Config) -> std::result::Result<Session, DatabaseError> {
        let opened = async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            drop(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!(error = %base::report(&error), "catalogue connection closed");
                }
            }));
            let session = Session {
                client,
                born: Instant::now(),
            };
            self.check(&session).await?;
            Ok(session)
        };
        match timeout(2 * CONNECT_TIMEOUT, opened).await {
            Ok(session) => session,
            Err(_) => Err(DatabaseError::Connection("the host does not answer".into())),
        }
    }

    /// Refuses a server that takes no writes, or that is another one than ours.
    async fn check(&self, session: &Session) -> std::result::Result<(), DatabaseError> {
        let rows = session
            .query(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
                     (SELECT system_identifier::text FROM pg_control_system()),
                     current_setting('server_encoding')",
                &[],
            )
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| DatabaseError::Connection("the server tells nothing".into()))?;
        let refuse = |why: String| Err(DatabaseError::Connection(why));
        if row.try_get::<_, bool>(0)? {
            return refuse("the server takes no writes".into());
        }
        let encoding: String = row.try_get(2)?;
        if encoding != "UTF8" {
            return refuse(format!(
                "the database has the encoding {encoding}: create it with ENCODING 'UTF8'"
            ));
        }
        let cluster: String = row.try_get(1)?;
        let ours = self.cluster.get_or_init(|| cluster.clone());
        if *ours != cluster {
            return refuse(format!(
                "the server belongs to the cluster {cluster}, the catalogue lies in {ours}"
            ));
        }
        Ok(())
    }
}

/// Sessions that look things up.
#[derive(Clone)]
pub(super) struct Pool(managed::Pool<Manager>);

pub(super) struct Manager(Arc<Connector>);

impl managed::Manager for Manager {
    type Type = Session;
    type Error = DatabaseError;

    async fn create(&self) -> std::result::Result<Session, DatabaseError> {
        self.0.connect().await
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<DatabaseError> {
        match session.is_usable(self.0.lifetime()) {
            true => Ok(()),
            false => Err(RecycleError::message("closed, or too old")),
        }
    }
}

impl Pool {
    pub(super) fn new(connector: Arc<Connector>, sessions_max: usize) -> Self {
        let pool = managed::Pool::builder(Manager(connector))
            .max_size(sessions_max)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(3 * CONNECT_TIMEOUT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is named");
        Self(pool)
    }

    /// Opens sessions side by side, so that the first requests find them.
    pub(super) async fn warm(&self, sessions: usize) {
        let begun = Instant::now();
        let opened = join_all((0..sessions).map(|_| self.0.get())).await;
        let ready = opened.iter().filter(|session| session.is_ok()).count();
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(Err(error)) = opened.into_iter().find(std::result::Result::is_err) {
            warn!(ready, wanted = sessions, error = %base::report(&error), "could not fill the connection pool of the catalogue");
        } else {
            info!(ready, ms, "connection pool of the catalogue filled");
        }
    }

    /// One flight. A session that turns out to be dead is replaced once: a lookup may be repeated.
    pub(super) async fn query(
        &self,
        sql: &str,
        params: &Params<'_>,
    ) -> std::result::Result<Vec<Row>, Fault> {
        let mut tries = 0;
        loop {
            let session = self.get().await?;
            match session.query(sql, params).await {
                Err(error) if error.is_connection() => {
                    drop(managed::Object::take(session));
                    tries += 1;
                    if tries > 1 {
                        return Err(Fault::Postgres(error));
                    }
                }
                Err(other) => return Err(Fault::Postgres(other)),
                Ok(rows) => return Ok(rows),
            }
        }
    }

    async fn get(&self) -> std::result::Result<managed::Object<Manager>, Fault> {
        self.0.get().await.map_err(|error| match error {
            managed::PoolError::Backend(error) => Fault::Postgres(error),
            managed::PoolError::Closed => Fault::Known(crate::Error::Closed),
            other => Fault::Postgres(DatabaseError::Connection(other.to_string())),
        })
    }

    /// A session for a longer walk; it goes back with the guard.
    pub(super) async fn session(
        &self,
    ) -> std::result::Result<impl std::ops::DerefMut<Target = Session>, Fault> {
        self.get().await
    }

    pub(super) fn close(&self) {
        self.0.close();
    }
}
