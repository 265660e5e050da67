//! The probe against providers that differ, and against one that fails in its middle.

use std::sync::Arc;

use backend::{
    BodyEnd, Call, Capabilities, DeleteTarget, GuardOptions, Guarded, Kind, Meter,
    ObjectBackend as _,
};
use base::{BackendKey, Crc64, Md5, Traffic};
use http::Method;
use parking_lot::Mutex;

use crate::s3_script::{Action, Script, Seen, answer, refusal};

const CALLS_MAX: usize = 10;
const MD5_OF_BODY: &[u8] = b"s3-orchestrator asks what this provider does\n";

fn ok(headers: &[(&str, &str)]) -> Action {
    Action::Answer(answer("200 OK", headers, ""))
}

fn document(text: &str) -> Action {
    Action::Answer(answer("200 OK", &[], text))
}

fn refused(code: &str) -> Action {
    Action::Answer(refusal("400 Bad Request", code))
}

fn lacking() -> Action {
    Action::Answer(refusal("501 Not Implemented", "NotImplemented"))
}

const EMPTY_LIST: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
const COPIED: &str = "<CopyObjectResult><ETag>e</ETag>\
    <LastModified>2026-01-01T00:00:00.000Z</LastModified></CopyObjectResult>";

/// Sums what it hears of.
#[derive(Default)]
struct Sum(Mutex<Traffic>);

impl Meter for Sum {
    fn call(&self, _call: &Call<'_>) {}

    fn body(&self, _end: &BodyEnd<'_>) {}

    fn traffic(&self, traffic: Traffic) {
        let mut sum = self.0.lock();
        *sum = sum.plus(traffic);
    }
}

/// The answers of a provider that does everything, to the questions of a probe.
fn everything() -> Vec<Action> {
    let etag = Md5::of(MD5_OF_BODY).to_hex();
    let sum = Crc64::of(MD5_OF_BODY).to_checksum().to_base64();
    let echo = ("x-amz-checksum-crc64nvme", sum.as_str());
    vec![
        ok(&[("ETag", &etag), echo]),
        refused("BadDigest"),
        ok(&[echo]),
        refused("BadDigest"),
        ok(&[]),
        document(EMPTY_LIST),
        document(COPIED),
        document("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
        document(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        ),
        document("<DeleteResult/>"),
    ]
}

#[tokio::test]
async fn every_request_of_a_call_that_needs_several_is_told() {
    let gone = || Action::Answer(answer("204 No Content", &[], ""));
    let mut actions = vec![gone(), gone()];
    actions.extend(everything());
    let script = Script::play(actions).await;
    let sum = Arc::new(Sum::default());
    let backend = Arc::new(script.backend());
    let guarded = Guarded::new(backend, GuardOptions::DEFAULT, Arc::<Sum>::clone(&sum));
    let told = || std::mem::take(&mut *sum.0.lock());
    // As long as nothing is known of batch deletes, each object is a request of its own.
    let target = |name| DeleteTarget {
        key: BackendKey::new(name).unwrap(),
        version: None,
    };
    guarded.delete(&[target("a"), target("b")]).await;
    assert_eq!((told(), script.seen().len()), (Traffic::requests(2), 2));
    guarded.probe().await.unwrap();
    let seen = script.seen();
    let with_body =
        |seen: &&Seen| seen.method == Method::PUT && seen.header("x-amz-copy-source").is_none();
    let bodies = seen.iter().filter(with_body).count();
    assert_eq!(bodies, 5);
    let expected = Traffic {
        ingress: (bodies * MD5_OF_BODY.len()) as u64,
        ..Traffic::requests(CALLS_MAX as u64)
    };
    assert_eq!((told(), seen.len()), (expected, CALLS_MAX + 2));
}

#[tokio::test]
async fn a_provider_that_does_everything_is_asked_ten_times() {
    let script = Script::play(everything()).await;
    let backend = script.backend();
    let found = backend.probe().await.unwrap();
    assert_eq!(found, backend.capabilities());
    let expected = Capabilities {
        md5_etag: true,
        checksum_header: true,
        checksum_trailer: true,
        echoes_checksum: true,
        batch_delete: true,
        versioned: true,
        copy: true,
        part_copy: true,
        list_uploads: true,
        // The listing did not show it.
        odd_keys: false,
    };
    assert_eq!(found, expected);
    let seen = script.seen();
    assert_eq!(seen.len(), CALLS_MAX);
    // What was written, accepted or not, is in the batch that removes it.
    let batch = std::str::from_utf8(&seen[9].body).unwrap();
    for name in ["first", "odd//./../100%25", "copy"] {
        assert!(
            batch.contains(&format!("/{name}</Key>")),
            "{name} in {batch}"
        );
    }
    let asked = |at: usize| {
        seen[at]
            .header("x-amz-checksum-crc64nvme")
            .unwrap()
            .to_owned()
    };
    assert_ne!(asked(0), asked(1));
    assert_eq!(seen[2].payload(), MD5_OF_BODY);
}

#[tokio::test]
async fn an_echo_counts_only_if_every_reply_that_could_carry_one_did() {
    for silent in [0, 2] {
        let mut actions = everything();
        actions[silent] = ok(&[]);
        let script = Script::play(actions).await;
        let found = script.backend().probe().await.unwrap();
        assert!(found.checksum_header && found.checksum_trailer, "{found:?}");
        assert!(!found.echoes_checksum, "{found:?}");
    }
}

#[tokio::test]
async fn checksums_that_are_ignored_are_not_counted_as_verified() {
    let script = Script::play(vec![
        ok(&[("x-amz-version-id", "v1")]),
        ok(&[("x-amz-version-id", "v2")]),
        ok(&[]),
        document(EMPTY_LIST),
        lacking(),
        lacking(),
        lacking(),
        ok(&[]),
        ok(&[]),
        ok(&[]),
    ])
    .await;
    let found = script.backend().probe().await.unwrap();
    assert_eq!(
        found,
        Capabilities {
            versioned: true,
            ..Capabilities::UNKNOWN
        }
    );
    // One by one, by their versions where they have one.
    let mut removed: Vec<_> = script.seen()[7..]
        .iter()
        .map(|seen| seen.query.clone())
        .collect();
    removed.sort();
    assert_eq!(removed, ["", "versionId=v1", "versionId=v2"]);
}

#[tokio::test]
async fn a_provider_that_refuses_checksum_headers_is_asked_without() {
    let script = Script::play(vec![
        refused("ExcessHeaderValues"),
        ok(&[]),
        ok(&[]),
        document(EMPTY_LIST),
        document(COPIED),
        document("<VersioningConfiguration/>"),
        lacking(),
        document("<DeleteResult/>"),
    ])
    .await;
    let found = script.backend().probe().await.unwrap();
    let expected = Capabilities {
        batch_delete: true,
        copy: true,
        part_copy: true,
        ..Capabilities::UNKNOWN
    };
    assert_eq!(found, expected);
    assert!(
        script.seen()[1]
            .header("x-amz-checksum-crc64nvme")
            .is_none()
    );
}

#[tokio::test]
async fn a_provider_that_is_down_or_goes_down_stays_unknown() {
    let down = Action::Answer(refusal("503 Service Unavailable", "ServiceUnavailable"));
    let script = Script::play(vec![down, ok(&[])]).await;
    let backend = script.backend();
    assert_eq!(backend.probe().await.unwrap_err().kind, Kind::Throttled);
    assert_eq!(backend.capabilities(), Capabilities::UNKNOWN);

    let script = Script::play(vec![
        ok(&[]),
        Action::AnswerAndClose(String::new()),
        // What may be there is removed all the same.
        ok(&[]),
    ])
    .await;
    let backend = script.backend();
    assert_eq!(backend.probe().await.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(backend.capabilities(), Capabilities::UNKNOWN);
    assert_eq!(script.seen().len(), 3);
    assert_eq!(script.seen()[2].method, "DELETE");
}
