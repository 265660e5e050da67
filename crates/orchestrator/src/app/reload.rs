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

/// The parts of the file that differ and are read at the start only. Secrets print as `***`, so a
/// backend's changed secret alone is not noticed.
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
        (
            "server",
            format!("{:?}", old.server) != format!("{server:?}"),
        ),
        (
            "buckets[].max_multipart_uploads",
            limits(old) != limits(new),
        ),
        (
            "database",
            format!("{:?}", old.database) != format!("{:?}", new.database),
        ),
        (
            "backends",
            format!("{:?}", old.backends) != format!("{:?}", new.backends),
        ),
        (
            "routing_strategy",
            old.routing_strategy != new.routing_strategy,
        ),
        (
            "cleanup_queue",
            format!("{:?}", old.cleanup_queue) != format!("{:?}", new.cleanup_queue),
        ),
        ("usage_flush", old.usage_flush != new.usage_flush),
        (
            "redis",
            format!("{:?}", old.redis) != format!("{:?}", new.redis),
        ),
        (
            "write_path",
            old.write_path.replay_window != new.write_path.replay_window,
        ),
        (
            "telemetry.metrics",
            format!("{:?}", old.metrics) != format!("{:?}", new.metrics),
        ),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}
