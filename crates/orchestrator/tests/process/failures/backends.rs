//! Storage that is gone, is somebody else's, or is full.

use std::fs;

use backend::ObjectBackend as _;
use http::Method;
use s3wire::sigv4::PayloadMode;
use tokio::process::Command;

use super::{
    SMALL_BYTES, STREAMED_BYTES, can_unshare, is_absent, key, reads, reads_as, reads_later, store,
    write,
};
use crate::support::content::Content;
use crate::support::home::{Home, PROGRAM, s3_backend};
use crate::support::raw::{self, Connection, Head};
use crate::support::server::Server;

/// Where a local backend keeps its marker.
const MARKER: &str = ".s3o/backend%f";

/// Two backends, with `on-one` on the first and `on-two` on the second.
async fn two_backends() -> Home {
    let mut home = Home::with_local(&["one", "two"]);
    home.backends[0] = home.backends[0].clone().with("quota_bytes: 100KiB");
    let server = home.serve().await;
    let client = server.client();
    store(&client, "on-one", SMALL_BYTES).await;
    store(&client, "on-two", STREAMED_BYTES).await;
    server.stop().await;
    home
}

async fn both_read(server: &Server) {
    let client = server.client();
    reads(&client, "on-one", SMALL_BYTES).await;
    reads(&client, "on-two", STREAMED_BYTES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_takes_only_its_backend_out_of_service() {
    let home = two_backends().await;
    fs::rename(home.path("two"), home.path("away")).unwrap();
    let mut server = home.serve().await;
    server
        .logged(&[
            "\"ERROR\"",
            "backend out of service",
            "\"two\"",
            "unreachable",
        ])
        .await;
    assert_eq!(
        server
            .metric("s3o_backend_in_service{backend=\"two\"}")
            .await,
        Some(0)
    );
    let health = raw::plain_get(server.addr, "/health").await;
    assert_eq!(
        (health.status, &*health.body),
        (
            200,
            &br#"{"status":"degraded","reasons":["backend_out_of_service"]}"#[..]
        )
    );
    let client = server.client();
    reads(&client, "on-one", SMALL_BYTES).await;
    reads_later(&client, "on-two").await;
    assert_eq!(
        client.head(&key("on-two"), None).await.unwrap().size,
        STREAMED_BYTES
    );
    store(&client, "new", SMALL_BYTES).await;
    let verified = home.run(&["catalogue", "verify"]).await;
    assert_eq!(verified.code, Some(1));
    assert!(
        verified.out.contains("fault: ") && verified.out.contains("on two"),
        "{verified:?}"
    );
    server.stop().await;
    let recovered = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(recovered.code, Some(1));
    assert!(
        recovered.out.contains("not looked at: backend two"),
        "{recovered:?}"
    );
    assert!(
        !home.path("two").exists(),
        "nothing makes up for a mount that is missing"
    );

    fs::rename(home.path("away"), home.path("two")).unwrap();
    let server = home.serve().await;
    both_read(&server).await;
    reads(&server.client(), "new", SMALL_BYTES).await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mount_point_is_not_written_to() {
    let home = two_backends().await;
    fs::rename(home.path("two"), home.path("away")).unwrap();
    fs::create_dir(home.path("two")).unwrap();
    let mut server = home.serve().await;
    server
        .logged(&[
            "\"ERROR\"",
            "backend out of service",
            "\"two\"",
            "its marker .s3o/backend is gone",
        ])
        .await;
    let client = server.client();
    reads_later(&client, "on-two").await;
    let refused = write(&client, "large", Content::of_key("large", STREAMED_BYTES)).await;
    assert!(
        refused.unwrap_err().contains("InsufficientStorage"),
        "only the full one is left"
    );
    reads(&client, "on-one", SMALL_BYTES).await;
    server.stop().await;
    let mut found = Vec::new();
    crate::support::home::files_below(&home.path("two"), &mut found);
    assert_eq!(found, Vec::<std::path::PathBuf>::new());

    fs::remove_dir_all(home.path("two")).unwrap();
    fs::rename(home.path("away"), home.path("two")).unwrap();
    let server = home.serve().await;
    both_read(&server).await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_goes_while_the_server_runs_loses_nothing() {
    let home = two_backends().await;
    let server = home.serve().await;
    both_read(&server).await;
    let client = server.client();
    fs::rename(home.path("two"), home.path("away")).unwrap();
    fs::create_dir(home.path("two")).unwrap();
    reads_later(&client, "on-two").await;
    let refused = write(&client, "large", Content::of_key("large", STREAMED_BYTES)).await;
    assert!(refused.unwrap_err().contains("ServiceUnavailable"));
    assert_eq!(
        fs::read_dir(home.path("two")).unwrap().count(),
        0,
        "nothing is written there"
    );
    fs::remove_dir(home.path("two")).unwrap();
    fs::rename(home.path("away"), home.path("two")).unwrap();
    both_read(&server).await;
    store(&client, "large", STREAMED_BYTES).await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_marker_of_another_catalogue_takes_a_backend_out_of_service() {
    let home = two_backends().await;
    let stranger = two_backends().await;
    let marker = home.path("two").join(MARKER);
    let own = fs::read(&marker).unwrap();
    let foreign = fs::read(stranger.path("two").join(MARKER)).unwrap();
    fs::write(&marker, &foreign).unwrap();
    let before = home.stored_files();
    let mut server = home.serve().await;
    server
        .logged(&[
            "\"ERROR\"",
            "backend out of service",
            "\"two\"",
            "belongs to catalogue ",
        ])
        .await;
    let content = Content::of_key("large", STREAMED_BYTES);
    let refused = write(&server.client(), "large", content).await;
    assert!(
        refused.unwrap_err().contains("InsufficientStorage"),
        "only the full one is left"
    );
    server.stop().await;
    assert_eq!(
        fs::read(&marker).unwrap(),
        foreign,
        "a foreign marker is left as it is"
    );
    assert_eq!(home.stored_files(), before);

    fs::write(&marker, own).unwrap();
    let server = home.serve().await;
    both_read(&server).await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_catalogue_is_begun_on_backends_of_another_one() {
    let home = two_backends().await;
    let copy = home.path("catalogue.copy");
    fs::rename(&home.database, &copy).unwrap();
    fs::remove_file(home.path("catalogue.db-intents")).unwrap();
    let before = home.stored_files();
    let done = home.run(&["serve"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    for words in [
        "no catalogue is begun",
        "backend one belongs to the catalogue",
        "backend two belongs to the catalogue",
        "reconcile --recover",
    ] {
        assert!(done.err.contains(words), "{words}: {done:?}");
    }
    assert!(!home.database.exists(), "nothing was made");
    // Neither is one on an empty file; and one backend that cannot be seen speaks for nobody.
    fs::write(&home.database, "").unwrap();
    fs::rename(home.path("two"), home.path("away")).unwrap();
    let done = home.run(&["serve"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("backend one belongs to"), "{done:?}");
    assert!(!done.err.contains("backend two belongs to"), "{done:?}");
    fs::rename(home.path("away"), home.path("two")).unwrap();
    assert_eq!(home.stored_files(), before);
    // The catalogue in its place again.
    fs::rename(&copy, &home.database).unwrap();
    let server = home.serve().await;
    both_read(&server).await;
    server.stop().await;
    // It is lost for good, and the backends are taken over on purpose.
    fs::remove_file(&home.database).unwrap();
    fs::remove_file(home.path("catalogue.db-intents")).unwrap();
    for name in ["one", "two"] {
        fs::remove_file(home.path(name).join(MARKER)).unwrap();
    }
    let server = home.serve().await;
    is_absent(&server.client(), "on-one").await;
    store(&server.client(), "new", SMALL_BYTES).await;
    server.stop().await;
    let after = home.stored_files();
    assert!(before.iter().all(|file| after.contains(file)), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_does_not_prevent_the_first_start() {
    let mut home = Home::with_local(&["one"]);
    home.backends.push(s3_backend("away", "http://127.0.0.1:9"));
    let server = home.serve().await;
    store(&server.client(), "kept", SMALL_BYTES).await;
    reads(&server.client(), "kept", SMALL_BYTES).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_catalogue_answers_503_for_what_it_lacks_until_all_its_backends_were_seen() {
    let mut home = Home::with_local(&["one"]);
    home.backends.push(s3_backend("away", "http://127.0.0.1:9"));
    let mut server = home.serve().await;
    server
        .logged(&[
            "\"ERROR\"",
            "new catalogue has not seen all its backends",
            "backend away is out of service, unreachable",
            "take them out of the configuration",
            "reconcile --recover",
        ])
        .await;
    let client = server.client();
    store(&client, "kept", SMALL_BYTES).await;
    reads(&client, "kept", SMALL_BYTES).await;
    reads_later(&client, "absent").await;
    let get = |path, query| Head {
        method: Method::GET,
        path,
        query,
        headers: &[],
        payload: PayloadMode::EMPTY,
    };
    let delete = Head {
        method: Method::DELETE,
        ..get("/b/absent", "")
    };
    let requests = [
        get("/b/absent", ""),
        get("/b", "list-type=2"),
        get("/b", "versions="),
        get("/b", "uploads="),
        get("/no-such-bucket", "list-type=2"),
        get("/", ""),
        delete,
    ];
    for head in requests {
        let reply = raw::request(server.addr, &head, b"").await.unwrap();
        let told = (reply.status, reply.code());
        assert_eq!(
            told,
            (503, "ServiceUnavailable".to_owned()),
            "{}",
            head.path
        );
        assert!(reply.headers.contains_key("retry-after"), "{}", head.path);
    }
    server.stop().await;
    // The operator does without it.
    home.backends.pop();
    let server = home.serve().await;
    is_absent(&server.client(), "absent").await;
    reads(&server.client(), "kept", SMALL_BYTES).await;
    server.stop().await;
    // One that is added later, and is down then, is nothing that a catalogue begins with.
    home.backends.push(s3_backend("away", "http://127.0.0.1:9"));
    let server = home.serve().await;
    is_absent(&server.client(), "absent").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_point_to_each_others_storage_are_noticed() {
    let mut home = two_backends().await;
    let right = home.backends.clone();
    let (one, two) = (home.backends[0].name.clone(), home.backends[1].name.clone());
    home.backends[0].name = two;
    home.backends[1].name = one;
    let before = home.stored_files();
    let mut server = home.serve().await;
    server
        .logged(&["backend out of service", "belongs to backend one"])
        .await;
    server
        .logged(&["backend out of service", "belongs to backend two"])
        .await;
    let client = server.client();
    reads_later(&client, "on-one").await;
    let refused = write(&client, "new", Content::of_key("new", SMALL_BYTES)).await;
    assert!(refused.unwrap_err().contains("ServiceUnavailable"));
    server.stop().await;
    assert_eq!(home.stored_files(), before);

    home.backends = right;
    let server = home.serve().await;
    both_read(&server).await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_the_configuration_forgot_prevents_the_start() {
    let mut home = two_backends().await;
    let forgotten = home.backends.pop().unwrap();
    let done = home.run(&["serve"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err
            .contains("the configuration lacks backend two (1 rows)"),
        "{done:?}"
    );
    home.backends.push(forgotten);
    let server = home.serve().await;
    both_read(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quota_refuses_before_the_body_is_sent() {
    let mut home = Home::with_local(&["one"]);
    home.backends[0] = home.backends[0].clone().with("quota_bytes: 500KiB");
    let server = home.serve().await;
    let client = server.client();
    store(&client, "kept", STREAMED_BYTES).await;
    let put = |path, length| Head {
        method: Method::PUT,
        path,
        query: "",
        headers: length,
        payload: PayloadMode::Unsigned,
    };
    let mut connection = Connection::open(server.addr).await;
    let too_long = [("content-length", "300000"), ("expect", "100-continue")];
    connection.head(&put("/b/kept", &too_long)).await;
    let reply = connection.reply().await.unwrap();
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (507, "InsufficientStorage")
    );
    assert!(!reply.invited, "nobody asked for the body");
    assert_eq!(reply.headers["connection"], "close");

    let mut connection = Connection::open(server.addr).await;
    let fits = [("content-length", "1000"), ("expect", "100-continue")];
    connection.head(&put("/b/small", &fits)).await;
    connection.invited().await;
    let content = Content::of_key("small", 1000);
    connection.send(&content.bytes()).await;
    assert_eq!(connection.reply().await.unwrap().status, 200);
    reads(&client, "kept", STREAMED_BYTES).await;
    reads(&client, "small", 1000).await;
    let out = home.verify().await;
    assert!(out.contains("reserved 0 B: exact"), "{out}");
    server.stop().await;
    home.nothing_unknown().await;
    assert_eq!(home.stored_files().len(), 2);
}

/// Needs namespaces of its own (Linux, user namespaces permitted or root): the disk that fills up is
/// a tmpfs that nobody else sees and that goes with the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_insufficient_storage_and_keeps_what_is_there() {
    can_unshare().await;
    let home = Home::with_local(&["one"]);
    fs::create_dir(home.path("one")).unwrap();
    home.write_config();
    let script = format!(
        "mount -t tmpfs -o size=6m none '{}' && exec '{PROGRAM}' serve -config '{}'",
        home.path("one").display(),
        home.config().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]);
    let server = Server::start(command).await.unwrap();
    let client = server.client();
    store(&client, "kept", 3 << 20).await;
    let health = async || raw::plain_get(server.addr, "/health").await.body;
    assert_eq!(health().await, br#"{"status":"ok"}"#);
    for size in [8 << 20, 4 << 20] {
        let refused = write(&client, "kept", Content::new(size, size)).await;
        assert!(refused.unwrap_err().contains("InsufficientStorage"));
        reads(&client, "kept", 3 << 20).await;
        let degraded = br#"{"status":"degraded","reasons":["backend_refuses_writes"]}"#;
        assert_eq!(health().await, degraded);
    }
    // What the refused ones had written is free again.
    let content = Content::new(7, 2 << 20);
    write(&client, "fits", content).await.unwrap();
    assert_eq!(health().await, br#"{"status":"ok"}"#);
    reads_as(&client, "fits", content).await;
    let pid = server.pid().as_raw_nonzero().to_string();
    let inside = ["-t", &pid, "-U", "-m", "--preserve-credentials", PROGRAM];
    let verified = Command::new("nsenter")
        .args(inside)
        .args(["catalogue", "verify", "-config"])
        .arg(home.config())
        .output()
        .await
        .unwrap();
    let out = String::from_utf8(verified.stdout).unwrap();
    assert!(
        out.contains("2 copies looked at, 0 faults, 0 contradictions"),
        "{out}"
    );
    assert!(out.contains("reserved 0 B: exact"), "{out}");
    server.stop().await;
}
