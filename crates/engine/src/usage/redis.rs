//! What is said to Redis, and how: transactions of plain commands over one connection.
//!
//! Keys, all of which expire: `<prefix>:usage:<month>:<backend>:<field>` is a hash from instances to
//! what each has counted and not yet written, as it stands; `<prefix>:usage:beats` a hash from
//! instances to numbers that rise with each publication, with one field more, the mark: a number that
//! rises whenever a publication shrank because its counts arrived in rows.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use base::{BackendName, Month, Traffic};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisError,
};
use tokio::time::timeout;

use crate::RedisSettings;

/// How long one exchange, or a connection, may take.
const OPERATION_MAX: Duration = Duration::from_secs(2);
/// How long a key outlives its last use: a month and some days.
const KEPT_S: i64 = 35 * 24 * 3600;
/// The field of the mark among the beats; no instance has this name.
const MARK: &str = "mark";
/// The fields of a backend, in the order of [`fields`].
const FIELDS: [&str; 3] = ["api_requests", "egress_bytes", "ingress_bytes"];

const fn fields(traffic: Traffic) -> [u64; 3] {
    [traffic.requests, traffic.egress, traffic.ingress]
}

/// Why an exchange failed. Whatever Redis refuses (`OOM` of a full one, `LOADING`, `READONLY`) counts
/// like its silence: it cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer from redis at {address} within {OPERATION_MAX:?}")]
    Silent { address: String },
    #[error("redis at {address}")]
    Refused {
        address: String,
        #[source]
        source: RedisError,
    },
}

/// What an instance publishes.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) instance: &'a str,
    pub(super) month: Month,
    pub(super) counts: &'a [(&'a BackendName, Traffic)],
    /// Whether counts arrived in rows since the last publication.
    pub(super) raise: bool,
}

/// What all instances published.
#[derive(Debug)]
pub(super) struct Heard {
    /// By backend, in the order in which they were asked for, and by instance.
    pub(super) counts: Vec<BTreeMap<String, Traffic>>,
    pub(super) beats: BTreeMap<String, u64>,
    pub(super) mark: u64,
}

/// A connection that is made when it is needed.
pub(super) struct Link {
    settings: RedisSettings,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    pub(super) fn new(settings: &RedisSettings) -> Self {
        Self {
            settings: settings.clone(),
            connection: None,
        }
    }

    pub(super) async fn publish(&mut self, told: &Told<'_>) -> Result<(), Failure> {
        let mut pipe = transaction();
        for (backend, traffic) in told.counts {
            for (field, count) in FIELDS.into_iter().zip(fields(*traffic)) {
                let key = self.key(told.month, backend, field);
                match count {
                    0 => pipe.cmd("HDEL").arg(&key).arg(told.instance).ignore(),
                    _ => pipe
                        .cmd("HSET")
                        .arg(&key)
                        .arg(told.instance)
                        .arg(count)
                        .ignore(),
                };
                expire(&mut pipe, &key);
            }
        }
        let beats = self.beats();
        pipe.cmd("HINCRBY").arg(&beats).arg(told.instance).arg(1);
        pipe.ignore();
        expire(&mut pipe, &beats);
        if told.raise {
            pipe.cmd("HINCRBY").arg(&beats).arg(MARK).arg(1).ignore();
        }
        self.run(&pipe).await
    }

    pub(super) async fn load(
        &mut self,
        month: Month,
        backends: &[&BackendName],
    ) -> Result<Heard, Failure> {
        let mut pipe = transaction();
        for backend in backends {
            for field in FIELDS {
                pipe.cmd("HGETALL").arg(self.key(month, backend, field));
            }
        }
        pipe.cmd("HGETALL").arg(self.beats());
        let hashes: Vec<HashMap<String, u64>> = self.run(&pipe).await?;
        let mut hashes = hashes.into_iter();
        let by_backend = |_: &&BackendName| {
            let mut by_instance: BTreeMap<String, Traffic> = BTreeMap::new();
            let places: [fn(&mut Traffic) -> &mut u64; 3] = [
                |traffic| &mut traffic.requests,
                |traffic| &mut traffic.egress,
                |traffic| &mut traffic.ingress,
            ];
            for (place, hash) in places.into_iter().zip(hashes.by_ref()) {
                for (instance, count) in hash {
                    *place(by_instance.entry(instance).or_default()) = count;
                }
            }
            by_instance
        };
        let counts = backends.iter().map(by_backend).collect();
        let mut beats: BTreeMap<String, u64> =
            hashes.next().unwrap_or_default().into_iter().collect();
        let mark = beats.remove(MARK).unwrap_or(0);
        Ok(Heard {
            counts,
            beats,
            mark,
        })
    }

    /// Takes an instance's fields out.
    pub(super) async fn leave(
        &mut self,
        instance: &str,
        month: Month,
        backends: &[&BackendName],
    ) -> Result<(), Failure> {
        let mut pipe = transaction();
        for backend in backends {
            for field in FIELDS {
                let key = self.key(month, backend, field);
                pipe.cmd("HDEL").arg(key).arg(instance).ignore();
            }
        }
        pipe.cmd("HDEL").arg(self.beats()).arg(instance).ignore();
        self.run(&pipe).await
    }

    fn key(&self, month: Month, backend: &BackendName, field: &str) -> String {
        let prefix = &self.settings.key_prefix;
        format!("{prefix}:usage:{month}:{backend}:{field}")
    }

    fn beats(&self) -> String {
        format!("{}:usage:beats", self.settings.key_prefix)
    }

    /// One transaction, on a connection that is made where there is none.
    async fn run<T: FromRedisValue>(&mut self, pipe: &Pipeline) -> Result<T, Failure> {
        let address = || format!("{}:{}", self.settings.host, self.settings.port);
        let silent = |_elapsed| Failure::Silent { address: address() };
        let refused = |source| Failure::Refused {
            address: address(),
            source,
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => timeout(OPERATION_MAX, connect(&self.settings))
                .await
                .map_err(silent)?
                .map_err(refused)?,
        };
        let answer = timeout(OPERATION_MAX, pipe.query_async(&mut connection))
            .await
            .map_err(silent)?
            .map_err(refused)?;
        // Kept only after a success: what else may be on its way would be taken for an answer.
        self.connection = Some(connection);
        Ok(answer)
    }
}

async fn connect(settings: &RedisSettings) -> Result<MultiplexedConnection, RedisError> {
    let (host, port) = (settings.host.clone(), settings.port);
    let addr = match settings.tls {
        true => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        false => ConnectionAddr::Tcp(host, port),
    };
    let mut login = RedisConnectionInfo::default().set_db(i64::from(settings.db));
    if let Some(password) = &settings.password {
        login = login.set_password(password.reveal());
    }
    let info = addr.into_connection_info()?.set_redis_settings(login);
    // Our own timeouts hold, and they hold for a transaction as a whole.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

fn transaction() -> Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe
}

fn expire(pipe: &mut Pipeline, key: &str) {
    pipe.cmd("EXPIRE").arg(key).arg(KEPT_S).ignore();
}
