//! What clients see while a backend, or the program itself, is broken.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backend::MemoryBackend;
use backend::faulty::{Fault, Faults, FaultyBackend, Rates};
use base::{BackendName, Clock, Ids, SystemClock};
use engine::{BackendKind, BackendSettings, CustomBackend, Engine, Event, Observer, Settings};
use orchestrator::front::{Access, Cores, Door, Front, FrontParts, Listener, Stopper, Telemetry};
use orchestrator::telemetry::Recorder;
use orchestrator::telemetry::audit::Audit;
use orchestrator::telemetry::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::support::{Auth, Options, Request, Response, Wire, configure, noise, path};

/// Two memory backends that fail on command, or a program that does.
pub(super) struct Frail {
    pub(super) addr: SocketAddr,
    faults: [Faults; 2],
    defect: Arc<AtomicBool>,
    _stopper: Stopper,
    _dir: TempDir,
}

/// Passes facts on, and panics when a test wants a defect on the data path.
struct Brittle {
    recorder: Recorder,
    defect: Arc<AtomicBool>,
}

impl Observer for Brittle {
    fn observe(&self, event: Event<'_>) {
        let is_verb = matches!(event, Event::Verb { .. });
        assert!(
            !(is_verb && self.defect.load(Ordering::Relaxed)),
            "a defect, as ordered"
        );
        self.recorder.observe(event);
    }
}

impl Frail {
    pub(super) async fn start(backend_timeout: Duration) -> Self {
        Self::with_calls(backend_timeout, 100).await
    }

    /// With so many calls at a time to each backend.
    pub(super) async fn with_calls(backend_timeout: Duration, calls_max: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = configure(dir.path(), &Options::default());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let faults = [Faults::none(), Faults::none()];
        let mut settings = Settings::new(dir.path().join("catalogue.db"));
        settings.buckets = config
            .buckets
            .iter()
            .map(|b| (b.name.clone(), None))
            .collect();
        settings.backend_timeout = backend_timeout;
        for (number, faults) in faults.iter().enumerate() {
            let name: BackendName = format!("memory-{number}").parse().unwrap();
            let memory = Arc::new(MemoryBackend::new(name.clone()));
            let faulty = FaultyBackend::new(memory, faults.clone());
            settings.backends.push(BackendSettings {
                name,
                kind: BackendKind::Custom(CustomBackend(Arc::new(faulty))),
                quota: None,
                max_object_size: None,
                body_idle_timeout: backend_timeout,
                calls_max,
                usage_limits: engine::UsageLimits::default(),
            });
        }
        let metrics = Arc::new(Metrics::new());
        let audit = Audit::new(Arc::clone(&metrics));
        let recorder = Recorder::new(Arc::clone(&metrics), audit.clone(), Arc::clone(&clock));
        let defect = Arc::new(AtomicBool::new(false));
        let observer = Brittle {
            recorder,
            defect: Arc::clone(&defect),
        };
        let ids = Arc::new(Ids::new(Arc::clone(&clock)));
        let engine = Engine::start(settings, clock, ids, Arc::new(observer))
            .await
            .unwrap();
        let front = Front::new(FrontParts {
            engine,
            access: Access::new(&config).unwrap(),
            telemetry: Telemetry { metrics, audit },
            server: &config.server,
            metrics: Some((Door::S3, "/metrics")),
            log: None,
        });
        let listener = Listener::bind(&config.server.listen_addr, None)
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let (stopper, serving) = listener.serve(front, Door::S3, Arc::new(Cores::start().unwrap()));
        tokio::spawn(serving);
        Self {
            addr,
            faults,
            defect,
            _stopper: stopper,
            _dir: dir,
        }
    }

    pub(super) async fn send(&self, request: Request) -> Response {
        self.wire(request).await.response(false).await
    }

    pub(super) async fn wire(&self, request: Request) -> Wire<TcpStream> {
        let mut wire = Wire::new(TcpStream::connect(self.addr).await.unwrap());
        wire.write(&request.bytes(self.addr)).await;
        wire
    }

    pub(super) fn both(&self, rates: Rates) {
        self.faults
            .iter()
            .for_each(|faults| faults.set_rates(rates));
    }

    /// From now on the program panics where it carries a request out, or does so no longer.
    pub(super) fn set_defect(&self, defect: bool) {
        self.defect.store(defect, Ordering::Relaxed);
    }
}

pub(super) const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_write_goes_to_another_backend_and_is_refused_when_there_is_none() {
    let frail = Frail::start(PATIENT).await;
    frail.faults[0].set_rates(Rates::DOWN);
    frail
        .send(Request::put(&path("k")).body(&noise(1000)))
        .await
        .expect(200);
    frail.both(Rates::DOWN);
    let refused = frail
        .send(Request::put(&path("l")).body(&noise(1000)))
        .await;
    assert_eq!(refused.verdict(), (503, "ServiceUnavailable".into()));
    assert_eq!(refused.header("retry-after"), "1");
    let unreadable = frail.send(Request::get(&path("k"))).await;
    assert_eq!(unreadable.verdict(), (503, "ServiceUnavailable".into()));
    // What the catalogue knows alone is answered all the same.
    let mut wire = frail.wire(Request::head(&path("k"))).await;
    assert_eq!(
        wire.response(true)
            .await
            .expect(200)
            .header("content-length"),
        "1000"
    );
    frail
        .send(Request::get("/photos?list-type=2"))
        .await
        .expect(200);
    let page = frail
        .send(Request::get("/metrics").auth(Auth::None))
        .await
        .text();
    let failover = "s3o_write_failover_total{operation=\"PutObject\",\
                    failed_backend=\"memory-0\",success_backend=\"memory-1\"} 1";
    assert!(page.contains(failover), "{page}");
}

#[tokio::test]
async fn a_body_that_breaks_off_on_its_way_out_is_cut() {
    for fault in [Fault::CutBody, Fault::ShortBody] {
        let frail = Frail::start(PATIENT).await;
        let body = noise(1 << 20);
        frail
            .send(Request::put(&path("k")).body(&body))
            .await
            .expect(200);
        for _ in 0..20 {
            frail
                .faults
                .iter()
                .for_each(|faults| faults.script("get", fault));
        }
        let mut wire = frail.wire(Request::get(&path("k"))).await;
        let (status, headers) = wire.head().await.unwrap();
        if status == 200 {
            assert_eq!(headers["content-length"], body.len().to_string().as_str());
            assert!(wire.rest().await.len() < body.len(), "{fault:?}");
        } else {
            assert_eq!(status, 503, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_defect_is_answered_with_500_and_the_next_request_is_served() {
    let frail = Frail::start(PATIENT).await;
    frail
        .send(Request::put(&path("k")).body(b"x"))
        .await
        .expect(200);
    frail.set_defect(true);
    let broken = frail.send(Request::get(&path("k"))).await;
    assert_eq!(broken.verdict(), (500, "InternalError".into()));
    assert!(!broken.text().contains("ordered"), "{}", broken.text());
    frail.set_defect(false);
    frail.send(Request::get(&path("k"))).await.expect(200);
    let page = frail
        .send(Request::get("/metrics").auth(Auth::None))
        .await
        .text();
    assert!(
        page.contains("s3o_http_panic_recovered_total{route=\"GetObject\"} 1"),
        "{page}"
    );
}

#[tokio::test]
async fn a_copy_that_takes_long_is_answered_before_its_outcome() {
    let frail = Frail::start(PATIENT).await;
    let put = Request::put(&path("k")).body(&noise(1000));
    frail.send(put).await.expect(200);
    let create = Request::post(&format!("{}?uploads", path("m")));
    let upload = frail.send(create).await.expect(200).element("UploadId");
    frail.both(Rates {
        stall: 1000,
        ..Rates::NONE
    });
    let part = format!("{}?partNumber=1&uploadId={upload}", path("m"));
    let copies = [path("copy"), part].map(|target| {
        let from = format!("{}/k", super::support::BUCKET);
        Request::put(&target).header("x-amz-copy-source", &from)
    });
    // What is known without the backend has a status of its own.
    for copy in copies.clone() {
        let refused = copy.header("x-amz-copy-source-if-match", "\"other\"");
        let refused = frail.send(refused).await;
        assert_eq!(refused.verdict(), (412, "PreconditionFailed".into()));
    }
    let mut waiting = Vec::new();
    for copy in copies {
        waiting.push(frail.wire(copy).await);
    }
    for wire in &mut waiting {
        let (status, headers) = wire.head().await.unwrap();
        assert_eq!(
            (status, &headers["transfer-encoding"]),
            (200, &"chunked".parse().unwrap())
        );
        assert_eq!(&wire.exactly(9).await[..], b"27\r\n<?xml");
    }
}

#[tokio::test]
async fn a_complete_that_takes_long_is_answered_before_its_outcome_and_can_be_asked_again() {
    let frail = Frail::start(PATIENT).await;
    let create = Request::post(&format!("{}?uploads", path("k")));
    let upload = frail.send(create).await.expect(200).element("UploadId");
    let part = format!("{}?partNumber=1&uploadId={upload}", path("k"));
    let part = frail.send(Request::put(&part).body(b"x")).await.expect(200);
    let body = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let complete = Request::post(&format!("{}?uploadId={upload}", path("k"))).body(body.as_bytes());
    frail.both(Rates {
        stall: 1000,
        ..Rates::NONE
    });
    let mut waiting = frail.wire(complete.clone()).await;
    let (status, headers) = waiting.head().await.unwrap();
    assert_eq!(
        (status, &headers["transfer-encoding"]),
        (200, &"chunked".parse().unwrap())
    );
    // The first chunk is the declaration, 39 bytes of it.
    assert_eq!(&waiting.exactly(9).await[..], b"27\r\n<?xml");
    // The same again waits for it, and goes on where nobody waits for it any more.
    let mut second = frail.wire(complete.clone()).await;
    let (status, _) = second.head().await.unwrap();
    assert_eq!(status, 200);
    drop((waiting, second));
    frail.both(Rates::NONE);
    let done = frail.send(complete.clone()).await.expect(200);
    assert!(
        done.text().contains("CompleteMultipartUploadResult"),
        "{}",
        done.text()
    );
    let got = frail.send(Request::get(&path("k"))).await.expect(200);
    assert_eq!(got.text(), "x");
}
