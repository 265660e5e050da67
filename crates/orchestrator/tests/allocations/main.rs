//! What a stranger can make the program allocate, counted.
//!
//! A binary of its own, because its allocator counts for the whole process and nothing else may run
//! beside a measurement.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test itself may"
)]

mod heads;

use std::alloc::System;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use orchestrator::app::{App, AppParts};
use orchestrator::config::{self, NoEnvironment};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// All that is allocated for a stranger's request, freed again or not, per byte that was sent.
const ALLOCATED_PER_BYTE_MAX: usize = 12;

/// What any connection and its answer allocate, however short the request.
const ALLOCATED_PER_CONNECTION_BYTES_MAX: usize = 96 << 10;

/// The program's own work goes on meanwhile; it does not hit three measurements in a row.
const ATTEMPTS_MAX: u32 = 3;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The program, with a bucket for whose pages the rules of cross-origin requests are many.
struct Program {
    addr: SocketAddr,
    app: App,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Program {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rule = "      - allowed_origins: [\"https://*.example.com\"]
        allowed_methods: [GET, PUT]
        allowed_headers: [\"x-amz-meta-something-long-*\", \"x-amz-meta-something-else-*\"]\n";
        let text = format!(
            "server:
  listen_addr: 127.0.0.1:0
  read_header_timeout: 300ms
  virtual_host_domains: [s3.example.com]
buckets:
  - name: photos
    cors:
{}
    credentials:
      - access_key_id: PHOTOSKEY
        secret_access_key: photos-secret
auth:
  allow_sigv2_presigned: true
database:
  path: {}
backends:
  - name: disk
    kind: local
    path: {}
",
            rule.repeat(8),
            dir.path().join("catalogue.db").display(),
            dir.path().join("disk").display(),
        );
        let config = config::parse(&text, Path::new("test.yaml"), &NoEnvironment);
        let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let runtime = Runtime::new().unwrap();
        let app = runtime.block_on(App::start(AppParts {
            config: config.config,
            config_file: None,
            clock: Arc::new(SystemClock),
            listener: None,
            log: None,
            role: engine::Role::All,
        }));
        let app = app.unwrap();
        Self {
            addr: app.s3_addr(),
            app,
            runtime,
            _dir: dir,
        }
    }

    /// Bytes that are allocated from the connection's first byte to its last.
    fn allocated_for(&self, sent: &[u8]) -> usize {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        let before = COUNTING.stats().bytes_allocated;
        // Whoever refuses a request may close before all of it was sent.
        let _refused = stream.write_all(sent);
        let mut piece = [0; 4096];
        let end = loop {
            match stream.read(&mut piece) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        assert_ne!(end, Some(ErrorKind::WouldBlock), "the connection goes on");
        let _gone = stream.shutdown(Shutdown::Both);
        COUNTING.stats().bytes_allocated - before
    }

    #[track_caller]
    fn check(&self, what: &str, sent: &[u8]) {
        let bound = ALLOCATED_PER_CONNECTION_BYTES_MAX + ALLOCATED_PER_BYTE_MAX * sent.len();
        let measured = (0..ATTEMPTS_MAX).map(|_| self.allocated_for(sent));
        let mut least = usize::MAX;
        for allocated in measured {
            least = least.min(allocated);
            if least <= bound {
                return;
            }
        }
        panic!(
            "{what}: {least} bytes allocated for {} sent, {bound} are the bound\n{:.300}",
            sent.len(),
            String::from_utf8_lossy(sent)
        );
    }

    fn stop(self) {
        self.runtime.block_on(self.app.stop()).unwrap();
    }
}

#[test]
fn no_request_allocates_more_than_a_multiple_of_its_size_before_it_is_authenticated() {
    let program = Program::start();
    let health = b"GET /health HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    assert!(program.allocated_for(health) > 0, "nothing is counted");
    for bytes in [1 << 10, 12 << 10, 60 << 10, 120 << 10] {
        for (what, head) in heads::shapes(bytes) {
            program.check(&format!("{what} in {bytes} bytes"), &head);
        }
    }
    for seed in 0..300 {
        program.check(&format!("seed {seed}"), &heads::random(seed));
    }
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut inputs = 0;
    for target in heads::CORPORA {
        for entry in fs::read_dir(corpora.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let head = heads::from_corpus(target, &fs::read(&path).unwrap());
            program.check(&path.display().to_string(), &head);
            inputs += 1;
        }
    }
    assert!(inputs > 1000, "{inputs} inputs in {}", corpora.display());
    program.stop();
}
