//! Signals while a transfer is under way.

use http::Method;
use rustix::process::Signal;
use s3wire::sigv4::PayloadMode;
use tokio::net::TcpStream;

use super::{STREAMED_BYTES, is_absent, reads, reads_as, store};
use crate::support::content::Content;
use crate::support::home::Home;
use crate::support::raw::{Connection, Head};
use crate::support::server::Server;

/// Begins a PUT of the content that belongs to `name` and sends half of it. The server has asked for
/// the body, so the transfer is under way.
async fn half_sent(server: &Server, name: &str) -> (Connection, bytes::Bytes) {
    let content = Content::of_key(name, STREAMED_BYTES).bytes();
    let (path, length) = (format!("/b/{name}"), content.len().to_string());
    let mut connection = Connection::open(server.addr).await;
    connection
        .head(&Head {
            method: Method::PUT,
            path: &path,
            query: "",
            headers: &[("content-length", &length), ("expect", "100-continue")],
            payload: PayloadMode::Unsigned,
        })
        .await;
    connection.invited().await;
    let half = content.len() / 2;
    connection.send(&content[..half]).await;
    (connection, content.slice(half..))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_the_transfer_that_is_under_way() {
    let home = Home::with_local(&["one"]);
    let mut server = home.serve().await;
    let (mut connection, rest) = half_sent(&server, "late").await;
    server.signal(Signal::TERM);
    server.logged(&["\"stopping\""]).await;
    server
        .until("a closed door", || async {
            TcpStream::connect(server.addr).await.is_err()
        })
        .await;
    connection.send(&rest).await;
    let reply = connection.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    let (code, err) = server.last_words().await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let server = home.serve().await;
    reads(&server.client(), "late", STREAMED_BYTES).await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_no_longer_than_it_was_told() {
    let mut home = Home::with_local(&["one"]);
    home.server = vec!["shutdown_timeout: 100ms".to_owned()];
    let mut server = home.serve().await;
    let (connection, _rest) = half_sent(&server, "late").await;
    server.signal(Signal::TERM);
    server.logged(&["requests aborted at stop"]).await;
    let (code, err) = server.last_words().await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    drop(connection);
    let server = home.serve().await;
    is_absent(&server.client(), "late").await;
    server.settled(&home, 0).await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let home = Home::with_local(&["one"]);
    let mut server = home.serve().await;
    let before = Content::new(3, STREAMED_BYTES);
    super::write(&server.client(), "late", before)
        .await
        .unwrap();
    store(&server.client(), "kept", STREAMED_BYTES).await;
    let (connection, _rest) = half_sent(&server, "late").await;
    server.signal(Signal::TERM);
    server.logged(&["\"stopping\""]).await;
    server.signal(Signal::INT);
    let (code, err) = server.last_words().await;
    assert_eq!(code, Some(1));
    assert!(err.contains("interrupted while stopping"), "{err}");
    drop(connection);
    let server = home.serve().await;
    reads_as(&server.client(), "late", before).await;
    reads(&server.client(), "kept", STREAMED_BYTES).await;
    server.settled(&home, 2).await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}
