//! Everything that goes wrong around the program, each with the answer that is documented for it:
//! the exit code or the S3 error, the message, and that nothing was lost or left behind.

mod backends;
mod catalogues;
mod limits;
mod requests;
mod restores;
mod stopping;

use backend::{BackendKey, Kind, ObjectBackend as _, Payload, PutMeta, S3Backend};
use tokio::process::Command;

use crate::support::content::{Content, ContentExt as _};

/// Bytes that fit into one request without streaming.
const SMALL_BYTES: u64 = 10_000;
/// Bytes that are streamed.
const STREAMED_BYTES: u64 = 300_000;

fn key(name: &str) -> BackendKey {
    BackendKey::new(name).unwrap()
}

/// A disk of a test's own takes a namespace: `unshare` of util-linux, as root or where user namespaces
/// are permitted. Without it the test fails: one that is left out proves nothing.
async fn can_unshare() {
    let probe = Command::new("unshare").args(["-rm", "true"]).output().await;
    let probe = probe.expect("`unshare` (util-linux) is needed to run this test");
    assert!(
        probe.status.success(),
        "this test needs user namespaces (kernel.unprivileged_userns_clone, and what AppArmor or a \
         container forbids): {}",
        String::from_utf8_lossy(&probe.stderr)
    );
}

/// Stores the content that belongs to the key.
async fn store(client: &S3Backend, name: &str, bytes: u64) {
    write(client, name, Content::of_key(name, bytes))
        .await
        .unwrap();
}

async fn write(client: &S3Backend, name: &str, content: Content) -> Result<(), String> {
    let payload = match content.length > SMALL_BYTES {
        true => content.streamed(),
        false => Payload::from_bytes(content.bytes()),
    };
    let put = client.put(&key(name), &PutMeta::default(), payload).await;
    put.map(|_| ())
        .map_err(|error| base::report(&error).to_string())
}

/// Reads what `store` has stored.
async fn reads(client: &S3Backend, name: &str, bytes: u64) {
    reads_as(client, name, Content::of_key(name, bytes)).await;
}

async fn reads_as(client: &S3Backend, name: &str, content: Content) {
    let fetched = client.get(&key(name), None, None).await;
    let fetched = fetched.unwrap_or_else(|error| panic!("{name}: {}", base::report(&error)));
    content.check(fetched.body).await.unwrap();
}

/// A read is refused with 503: the object exists and cannot be had now.
async fn reads_later(client: &S3Backend, name: &str) {
    let refused = client.get(&key(name), None, None).await.unwrap_err();
    let said = refused.message.clone().unwrap_or_default();
    assert!(
        said.starts_with("ServiceUnavailable"),
        "{name}: {}",
        base::report(&refused)
    );
}

async fn is_absent(client: &S3Backend, name: &str) {
    let refused = client.head(&key(name), None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotFound, "{name}");
}
