//! A PostgreSQL that is put back to an older state under running instances.

use std::path::PathBuf;

use backend::{DeleteTarget, ObjectBackend as _};
use testbed::{Durability, Postgres};

use super::{SMALL_BYTES, STREAMED_BYTES, is_absent, key, reads, reads_as, store, write};
use crate::support::content::Content;
use crate::support::home::{Done, Home};
use crate::support::server::Server;

fn older() -> Content {
    Content::new(1, STREAMED_BYTES)
}

fn newer() -> Content {
    Content::new(2, STREAMED_BYTES)
}

/// What was written before the backup.
async fn write_before(server: &Server) {
    let client = server.client();
    write(&client, "overwritten", older()).await.unwrap();
    for name in ["kept", "deleted-since"] {
        store(&client, name, SMALL_BYTES).await;
    }
}

/// What the backup does not know: new objects, another body of one, and one less.
async fn write_after(servers: &[Server], home: &Home) -> Vec<PathBuf> {
    write(&servers[1].client(), "overwritten", newer())
        .await
        .unwrap();
    let target = DeleteTarget {
        key: key("deleted-since"),
        version: None,
    };
    let deleted = servers[0].client().delete(&[target]).await;
    assert!(deleted.iter().all(Result::is_ok));
    for (n, server) in servers.iter().enumerate() {
        store(&server.client(), &format!("added-{n}"), STREAMED_BYTES).await;
    }
    servers[0].settled(home, 2 + servers.len()).await;
    home.stored_files()
}

async fn in_recovery(server: &Server, active: u64) {
    server
        .until("the state of recovery", async || {
            server.metric("s3o_recovery_active").await == Some(active)
        })
        .await;
}

/// The instances notice, go on, and delete nothing; then the recovery finds all that was written.
async fn recovers(mut servers: Vec<Server>, home: &Home, files: &[PathBuf]) {
    for server in &mut servers {
        in_recovery(server, 1).await;
        server.logged(&["\"ERROR\"", "reconcile --recover"]).await;
    }
    // What the backup knows and has is read, and writes go on.
    for server in &servers {
        reads(&server.client(), "kept", SMALL_BYTES).await;
        is_absent(&server.client(), "added-0").await;
    }
    // An instance that learned of the recovery from the other one may find out with its next write that
    // it is unknown itself: that one is refused with 503, and clients try again.
    for (server, name) in [(&servers[0], "meanwhile"), (&servers[1], "kept")] {
        let client = server.client();
        let content = || Content::of_key(name, SMALL_BYTES);
        server
            .until("a write is taken", async || {
                write(&client, name, content()).await.is_ok()
            })
            .await;
    }

    let done: Done = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(done.code, Some(1), "a copy is missing: {done:?}");
    let adopted = format!(" {} objects adopted", 1 + servers.len());
    assert!(done.out.contains(&adopted), "{done:?}");
    assert!(done.out.contains("deleted-since"), "{done:?}");
    assert!(
        done.out
            .ends_with("The recovery is complete. Nothing was deleted.\n"),
        "{done:?}"
    );
    for server in &servers {
        in_recovery(server, 0).await;
        let client = server.client();
        reads_as(&client, "overwritten", newer()).await;
        for n in 0..servers.len() {
            reads(&client, &format!("added-{n}"), STREAMED_BYTES).await;
        }
        for name in ["kept", "meanwhile"] {
            reads(&client, name, SMALL_BYTES).await;
        }
    }
    // The body of "kept" that was replaced meanwhile may go, and nothing else.
    servers[0].settled(home, files.len() + 1).await;
    let left = home.stored_files();
    let gone = files.iter().filter(|file| !left.contains(file)).count();
    assert_eq!(gone, 1, "{left:#?} of {files:#?}");
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_in_the_place_of_a_running_database_loses_no_byte() {
    let mut postgres = Postgres::start(Durability::Durable);
    let mut home = Home::shared(&["one", "two"], postgres.database());
    home.extra.push_str("cleanup_queue:\n  read_grace: 1s\n");
    let mut servers = vec![home.serve().await, home.serve().await];
    write_before(&servers[0]).await;
    let backup = postgres.base_backup();
    // The backup does not know this one at all.
    servers.push(home.serve().await);
    let files = write_after(&servers, &home).await;
    let restored = tokio::task::spawn_blocking(move || {
        postgres.restore(backup);
        postgres
    });
    let _postgres = restored.await.unwrap();
    recovers(servers, &home, &files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_in_the_place_of_a_running_database_loses_no_byte() {
    let database = Postgres::shared().database();
    let mut home = Home::shared(&["one", "two"], database.clone());
    home.extra.push_str("cleanup_queue:\n  read_grace: 1s\n");
    let servers = vec![home.serve().await, home.serve().await];
    write_before(&servers[0]).await;
    let dump = home.path("s3o.dump");
    database.client(
        "pg_dump",
        &["--format=custom", "--file", dump.to_str().unwrap()],
    );
    let files = write_after(&servers, &home).await;
    database.client(
        "pg_restore",
        &[
            "--clean",
            "--if-exists",
            "--single-transaction",
            dump.to_str().unwrap(),
        ],
    );
    recovers(servers, &home, &files).await;
}
