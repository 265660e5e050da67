//! Monthly limits of backends: what a restart remembers.

use backend::{Kind, ObjectBackend as _, Payload, PutMeta};

use super::{STREAMED_BYTES, key, reads, store};
use crate::support::content::Content;
use crate::support::home::Home;
use crate::support::server::Server;

async fn ingress(server: &Server, backend: &str) -> u64 {
    let name = format!("s3o_usage_ingress_bytes{{backend=\"{backend}\"}}");
    server.metric(&name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_spent_this_month() {
    let mut home = Home::new();
    // Three objects fit, beside the markers of a few starts.
    let limit = format!("ingress_byte_limit: {}", 3 * STREAMED_BYTES + 10_000);
    let limited = home.local("one").with(limit);
    home.backends = vec![limited, home.local("two")];
    let server = home.serve().await;
    store(&server.client(), "a", STREAMED_BYTES).await;
    store(&server.client(), "b", STREAMED_BYTES).await;
    let before = ingress(&server, "one").await;
    assert!(before >= 2 * STREAMED_BYTES);
    server.stop().await;

    let server = home.serve().await;
    let after = ingress(&server, "one").await;
    assert!(
        after >= before && after < before + 10_000,
        "{before} {after}"
    );
    // One more fits, and the next one goes elsewhere.
    store(&server.client(), "c", STREAMED_BYTES).await;
    assert!(ingress(&server, "two").await < STREAMED_BYTES);
    store(&server.client(), "d", STREAMED_BYTES).await;
    assert!(ingress(&server, "two").await >= STREAMED_BYTES);
    for name in ["a", "b", "c", "d"] {
        reads(&server.client(), name, STREAMED_BYTES).await;
    }
    server.stop().await;

    // Without another place to go to, the same write is refused, and deletes pass.
    home.backends[1] = home.local("two").with("api_request_limit: 1");
    let server = home.serve().await;
    let content = Content::of_key("e", STREAMED_BYTES);
    let client = server.client();
    let refused = client
        .put(&key("e"), &PutMeta::default(), content.streamed())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Full, "{}", base::report(&refused));
    let small = Payload::from_bytes(bytes::Bytes::from_static(b"x"));
    client
        .put(&key("f"), &PutMeta::default(), small)
        .await
        .unwrap();
    let target = backend::DeleteTarget {
        key: key("d"),
        version: None,
    };
    client.delete(&[target]).await.pop().unwrap().unwrap();
    // Gone at once, although its bytes go later.
    let refused = server.client().get(&key("d"), None, None).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().kind, Kind::NotFound);
    server.stop().await;
    home.verify().await;
    home.nothing_unknown().await;
}
