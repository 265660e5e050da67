//! SIGHUP: certificates, credentials and the log level, each on its own.
//!
//! What cannot be used is logged and changes nothing; what needs a restart is named.

use tracing::{error, info, warn};

use super::App;
use crate::config::{self, Config, ProcessEnvironment};
use crate::front::Access;

impl App {
    /// Reads the files again.
    pub fn reload(&mut self) {
        self.reload_certificates();
        let Some(file) = self.config_file.clone() else {
            return;
        };
        match config::load(&file, &ProcessEnvironment) {
            Ok(loaded) => self.adopt(loaded.config),
            Err(error) => {
                let error = base::report(&error).to_string();
                error!(file = %file.display(), error, "configuration not reloaded");
            }
        }
    }

    fn reload_certificates(&self) {
        let Some(tls) = &self.tls else { return };
        match tls.reload(self.clock.now()) {
            Ok(()) => info!("certificates reloaded"),
            Err(error) => {
                let error = base::report(&error).to_string();
                error!(
                    error,
                    "certificates not reloaded: those from before stay in use"
                );
            }
        }
    }

    fn adopt(&mut self, new: Config) {
        match Access::new(&new) {
            Ok(access) => self.front.set_access(access),
            Err(error) => {
                error!(error = %error, "credentials not reloaded");
                return;
            }
        }
        if let Some(log) = &self.log {
            log.set_level(new.server.log_level);
        }
        for what in restart_only(&self.config, &new) {
            warn!(
                key = what,
                "changed in the file: takes effect at the next start"
            );
        }
        for bucket in &new.buckets {
            if self.engine.bucket(&bucket.name).is_none() {
                warn!(bucket = %bucket.name, "new bucket: exists from the next start on");
            }
        }
        self.config.buckets = new.buckets;
        self.config.root = new.root;
        self.config.grants = new.grants;
        self.config.admin_token = new.admin_token;
        self.config.server.log_level = new.server.log_level;
        info!("configuration reloaded");
    }
}

/// The parts of the file that differ and are read at the start only.
fn restart_only(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut server = new.server.clone();
    server.log_level = old.server.log_level;
    let limits = |config: &Config| -> Vec<_> {
        let buckets = config.buckets.iter();
        buckets
            .map(|bucket| (bucket.name.clone(), bucket.max_multipart_uploads))
            .collect()
    };
    [
        ("server", old.server != server),
        (
            "buckets[].max_multipart_uploads",
            limits(old) != limits(new),
        ),
        ("database", old.database != new.database),
        ("backends", old.backends != new.backends),
        (
            "routing_strategy",
            old.routing_strategy != new.routing_strategy,
        ),
        ("cleanup_queue", old.cleanup_queue != new.cleanup_queue),
        ("usage_flush", old.usage_flush != new.usage_flush),
        ("redis", old.redis != new.redis),
        ("write_path", old.write_path != new.write_path),
        (
            "circuit_breaker",
            old.circuit_breaker != new.circuit_breaker,
        ),
        ("telemetry.metrics", old.metrics != new.metrics),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
server: {listen_addr: '127.0.0.1:9000'}
buckets:
  - name: bucket
    credentials:
      - {access_key_id: AKIDEXAMPLE, secret_access_key: first-secret}
database: {driver: postgres, host: db, database: s3o, user: s3o, password: second-secret}
redis: {address: 'cache:6379', password: third-secret}
backends:
  - name: one
    endpoint: https://s3.example.com
    region: us-east-1
    bucket: b
    access_key_id: AKIDBACKEND
    secret_access_key: fourth-secret
";

    fn config(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text).unwrap();
        config::load(&file, &ProcessEnvironment).unwrap().config
    }

    #[test]
    fn a_changed_secret_is_noticed_where_it_needs_a_restart() {
        let old = config(FILE);
        for (secret, named) in [
            ("first-secret", None),
            ("second-secret", Some("database")),
            ("third-secret", Some("redis")),
            ("fourth-secret", Some("backends")),
        ] {
            let new = config(&FILE.replace(secret, "another-secret"));
            let found = restart_only(&old, &new);
            assert_eq!(found, named.into_iter().collect::<Vec<_>>(), "{secret}");
        }
        assert_eq!(restart_only(&old, &config(FILE)), Vec::<&str>::new());
    }
}
