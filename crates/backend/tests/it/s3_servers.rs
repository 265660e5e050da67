//! The suite on S3 servers that nobody here wrote: radosgw, once without and once with versions,
//! and s3s-fs. `cargo xtask test` starts them and says by environment variables where they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use backend::{Capabilities, ObjectBackend as _, S3Backend, S3Settings, conformance};
use base::{Secret, SystemClock};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use s3wire::sigv4::{PayloadMode, SignRequest, Signer};
use tokio::sync::OnceCell;

/// The bucket that all tests of a server share.
const BUCKET: &str = "test-0";
/// The bucket with versions; it is made here, because nobody else needs one.
const VERSIONED_BUCKET: &str = "test-versions";

/// A case that a server is known to fail, and the words in which it fails. Anything else that goes
/// wrong in that case, and a case that passes again, fails the test.
struct Fault {
    case: &'static str,
    words: &'static str,
}

const fn fault(case: &'static str, words: &'static str) -> Fault {
    Fault { case, words }
}

/// Ceph 16.
const RADOSGW_FAULTS: &[Fault] = &[
    // Turns underscores in the names of user metadata into dashes.
    fault("headers_and_metadata_come_back", "with-dash-and.dot"),
    fault("a_copy_takes_new_metadata", "with-dash-and.dot"),
    // Cannot lock an upload that is not there, and takes that for another Complete.
    fault(
        "an_aborted_upload_is_gone",
        "completion is already in progress",
    ),
    fault(
        "an_upload_that_is_unknown_is_named_so",
        "completion is already in progress",
    ),
    // Wants every part that was ever uploaded to be named in Complete.
    fault(
        "parts_come_in_any_order_and_can_be_replaced",
        "a subset of the parts makes an object",
    ),
];

/// s3s-fs 0.14.
const S3S_FS_FAULTS: &[Fault] = &[
    // Finds a wrong checksum after it has stored the object. The error's effect says as much.
    fault("a_checksum_that_differs_is_corrupt", "Unknown"),
    // Keys are paths: `a` and `a/b` exclude each other.
    fault("a_key_may_be_the_beginning_of_another", "InternalError"),
    fault("keys_come_in_byte_order_page_by_page", "InternalError"),
    // Says of a listing that it is percent-encoded, and does not encode it.
    fault("unusual_keys_are_kept_apart", "the listing"),
    // Lists parts without their entity tags and in no order.
    fault("a_completed_upload_is_one_object", "ETag"),
    fault("parts_come_in_any_order_and_can_be_replaced", "ETag"),
    // Leaves the time out of the answer to UploadPartCopy.
    fault("a_part_can_be_copied_from_a_range", "LastModified"),
    fault("the_probe_tells_the_truth", "LastModified"),
    // Calls an upload that is not there a matter of access rights.
    fault("an_aborted_upload_is_gone", "AccessDenied"),
    fault("an_upload_that_is_unknown_is_named_so", "AccessDenied"),
    // Looks at the sizes of parts before it looks whether they are there.
    fault("complete_refuses_other_parts", "EntityTooSmall"),
];

struct Server {
    variable: &'static str,
    bucket: &'static str,
    faults: &'static [Fault],
    first: OnceCell<First>,
}

/// What the first test of a server does for all of them: a probe beside another one would find that
/// one's keys.
struct First {
    capabilities: Capabilities,
    run: String,
}

static RADOSGW: Server = Server::new("S3O_TEST_RADOSGW", BUCKET, RADOSGW_FAULTS);
static RADOSGW_VERSIONS: Server = Server::new("S3O_TEST_RADOSGW", VERSIONED_BUCKET, RADOSGW_FAULTS);
static S3S_FS: Server = Server::new("S3O_TEST_S3SFS", BUCKET, S3S_FS_FAULTS);

impl Server {
    const fn new(variable: &'static str, bucket: &'static str, faults: &'static [Fault]) -> Self {
        Self {
            variable,
            bucket,
            faults,
            first: OnceCell::const_new(),
        }
    }

    /// Fails unless the case passed, or failed as it is known to.
    fn judge(&self, case: &str, outcome: Result<(), Box<dyn Any + Send>>) {
        let fault = self.faults.iter().find(|fault| fault.case == case);
        match (fault, outcome) {
            (None, Ok(())) => {}
            (None, Err(panic)) => resume_unwind(panic),
            (Some(_), Ok(())) => panic!("{case} passes now: take it off the list of faults"),
            (Some(fault), Err(panic)) => {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                if !text.contains(fault.words) {
                    resume_unwind(panic);
                }
            }
        }
    }

    fn settings(&self) -> S3Settings {
        let key = variable(&format!("{}_ACCESS_KEY", self.variable));
        let secret = Secret::new(variable(&format!("{}_SECRET_KEY", self.variable)));
        S3Settings::new(&variable(self.variable), self.bucket, &key, secret)
    }

    async fn backend(&self) -> (S3Backend, &str) {
        let name = "s3".parse().unwrap();
        let backend = S3Backend::new(name, self.settings(), Arc::new(SystemClock)).unwrap();
        let first = self
            .first
            .get_or_init(|| async {
                if self.bucket == VERSIONED_BUCKET {
                    make_versioned_bucket(&self.settings()).await;
                }
                let capabilities = backend.probe().await.unwrap();
                let run: u64 = StdRng::from_os_rng().random();
                First {
                    capabilities,
                    run: format!("{run:016x}"),
                }
            })
            .await;
        backend.adopt(first.capabilities);
        (backend, &first.run)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the servers are started outside of this process"
)]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `cargo xtask test`, which starts the servers")
    })
}

async fn make_versioned_bucket(settings: &S3Settings) {
    let versioning = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    for (query, body) in [("", ""), ("versioning=", versioning)] {
        let url = format!("{}/{}?{query}", settings.endpoint, settings.bucket);
        let uri: http::Uri = url.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "host",
            HeaderValue::try_from(uri.authority().unwrap().as_str()).unwrap(),
        );
        let request = SignRequest {
            method: &Method::PUT,
            path: uri.path(),
            query,
            payload: PayloadMode::of(body.as_bytes()),
            now: base::Clock::now(&SystemClock),
        };
        let secret = settings.secret_access_key.clone();
        Signer::new(
            settings.access_key_id.clone(),
            secret,
            settings.region.clone(),
        )
        .unwrap()
        .sign(request, &mut headers);
        let mut request = Request::put(uri)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        request.headers_mut().extend(headers);
        let client = Client::builder(TokioExecutor::new()).build_http();
        let status = client.request(request).await.unwrap().status();
        assert!(status.is_success(), "{status} for {url}");
    }
}

macro_rules! radosgw {
    ($($case:ident),* $(,)?) => {
        mod radosgw {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (backend, run) = RADOSGW.backend().await;
                    let prefix = format!("{run}/{}/", stringify!($case));
                    let case = AssertUnwindSafe(conformance::$case(&backend, &prefix));
                    RADOSGW.judge(stringify!($case), case.catch_unwind().await);
                }
            )*
        }
    };
}

macro_rules! radosgw_with_versions {
    ($($case:ident),* $(,)?) => {
        mod radosgw_with_versions {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (backend, run) = RADOSGW_VERSIONS.backend().await;
                    let prefix = format!("{run}/{}/", stringify!($case));
                    let case = AssertUnwindSafe(conformance::$case(&backend, &prefix));
                    RADOSGW_VERSIONS.judge(stringify!($case), case.catch_unwind().await);
                }
            )*
        }
    };
}

macro_rules! s3s_fs {
    ($($case:ident),* $(,)?) => {
        mod s3s_fs {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (backend, run) = S3S_FS.backend().await;
                    let prefix = format!("{run}/{}/", stringify!($case));
                    let case = AssertUnwindSafe(conformance::$case(&backend, &prefix));
                    S3S_FS.judge(stringify!($case), case.catch_unwind().await);
                }
            )*
        }
    };
}

backend::conformance_cases!(radosgw);
backend::conformance_cases!(radosgw_with_versions);
backend::conformance_cases!(s3s_fs);

#[tokio::test]
async fn the_probe_sees_what_these_servers_are_known_to_do() {
    let (radosgw, _) = RADOSGW.backend().await;
    let found = radosgw.capabilities();
    assert!(found.md5_etag && found.batch_delete && found.copy && found.list_uploads);
    assert!(!found.versioned && !found.checksum_trailer);
    let (versions, _) = RADOSGW_VERSIONS.backend().await;
    assert!(versions.capabilities().versioned);
    let (s3s_fs, _) = S3S_FS.backend().await;
    let found = s3s_fs.capabilities();
    assert!(found.checksum_header && found.checksum_trailer, "{found:?}");
    assert!(!found.list_uploads && !found.versioned, "{found:?}");
}
