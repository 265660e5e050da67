//! A catalogue that is older than its backends, in use, or not one; and a configuration that is wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend::{DeleteTarget, ObjectBackend as _};
use tokio::task::JoinHandle;

use super::{SMALL_BYTES, STREAMED_BYTES, is_absent, key, reads, reads_as, store, write};
use crate::support::content::Content;
use crate::support::home::Home;
use crate::support::raw;

async fn delete(client: &backend::S3Backend, name: &str) {
    let target = DeleteTarget {
        key: key(name),
        version: None,
    };
    client.delete(&[target]).await.pop().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_catalogue_deletes_nothing_and_recovers_what_is_newer() {
    let home = Home::with_local(&["one", "two"]);
    let server = home.serve().await;
    let client = server.client();
    let older = Content::new(1, STREAMED_BYTES);
    let newer = Content::new(2, STREAMED_BYTES);
    write(&client, "overwritten", older).await.unwrap();
    store(&client, "kept", SMALL_BYTES).await;
    store(&client, "doomed", SMALL_BYTES).await;
    let backup = home.path("backup.db");
    let done = home
        .run(&["catalogue", "backup", "--to", backup.to_str().unwrap()])
        .await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("reconcile --recover"), "{done:?}");
    write(&client, "overwritten", newer).await.unwrap();
    store(&client, "added", STREAMED_BYTES).await;
    server.stop().await;

    for beside in [
        "",
        "-wal",
        "-shm",
        "-intents",
        "-intents-wal",
        "-intents-shm",
    ] {
        let file = home.path(&format!("catalogue.db{beside}"));
        if file.exists() {
            fs::remove_file(file).unwrap();
        }
    }
    fs::copy(&backup, &home.database).unwrap();
    let before = home.stored_files();
    let mut server = home.serve().await;
    server
        .logged(&[
            "\"ERROR\"",
            "this catalogue was restored",
            "reconcile --recover",
        ])
        .await;
    assert_eq!(server.metric("s3o_recovery_active").await, Some(1));
    let health = raw::plain_get(server.addr, "/health").await;
    assert_eq!(health.body, b"{\"status\":\"degraded\"}");
    let client = server.client();
    reads_as(&client, "overwritten", older).await;
    reads(&client, "kept", SMALL_BYTES).await;
    is_absent(&client, "added").await;
    store(&client, "written-meanwhile", SMALL_BYTES).await;
    delete(&client, "doomed").await;
    is_absent(&client, "doomed").await;
    server.stop().await;
    let after = home.stored_files();
    assert!(
        before.iter().all(|file| after.contains(file)),
        "nothing was deleted on a backend"
    );

    let done = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains(" 2 objects adopted"), "{done:?}");
    assert!(
        done.out
            .ends_with("The recovery is complete. Nothing was deleted.\n"),
        "{done:?}"
    );
    let server = home.serve().await;
    assert_eq!(server.metric("s3o_recovery_active").await, Some(0));
    let client = server.client();
    reads_as(&client, "overwritten", newer).await;
    reads(&client, "added", STREAMED_BYTES).await;
    reads(&client, "kept", SMALL_BYTES).await;
    reads(&client, "written-meanwhile", SMALL_BYTES).await;
    is_absent(&client, "doomed").await;
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_restore_waits_for_the_recovery() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    store(&server.client(), "kept", SMALL_BYTES).await;
    let refused = home.run(&["catalogue", "restored"]).await;
    assert_eq!(
        refused.code,
        Some(1),
        "not while a server runs: {refused:?}"
    );
    server.stop().await;
    let done = home.run(&["catalogue", "restored"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let server = home.serve().await;
    assert_eq!(server.metric("s3o_recovery_active").await, Some(1));
    reads(&server.client(), "kept", SMALL_BYTES).await;
    server.stop().await;
    home.nothing_unknown().await;
    let server = home.serve().await;
    assert_eq!(server.metric("s3o_recovery_active").await, Some(0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_catalogue_names_the_first() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    store(&server.client(), "kept", SMALL_BYTES).await;
    let pid = format!(
        "in use by another process (pid {})",
        server.pid().as_raw_nonzero()
    );
    for command in [&["serve"][..], &["reconcile", "--recover"]] {
        let done = home.run(command).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.err.contains(&pid), "{done:?}");
    }
    reads(&server.client(), "kept", SMALL_BYTES).await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_refused_and_left_as_it_is() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process/failures/files");
    for (file, message) in [
        (
            "go-program.sqlite",
            "it is the database of the Go program s3-orchestrator",
        ),
        (
            "another-program.sqlite",
            "it is the SQLite database of another program",
        ),
        ("not-a-database.txt", "it is not an SQLite database"),
    ] {
        let home = Home::with_local(&["one"]);
        fs::copy(files.join(file), &home.database).unwrap();
        for command in [
            &["serve"][..],
            &["catalogue", "verify"],
            &["reconcile", "--recover"],
        ] {
            let done = home.run(command).await;
            assert_eq!(done.code, Some(1), "{file}: {done:?}");
            assert!(done.err.contains(message), "{file}: {done:?}");
        }
        assert_eq!(
            fs::read(&home.database).unwrap(),
            fs::read(files.join(file)).unwrap()
        );
        assert!(
            !home.path("one").join(".s3o").exists(),
            "no backend was touched"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_is_verified_beside_the_running_server() {
    let home = Home::with_local(&["one", "two"]);
    let server = home.serve().await;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let rounds: Arc<[AtomicU64; 3]> = Arc::default();
    let writers: Vec<_> = (0..3_u64)
        .map(|writer| {
            let (client, stopped) = (server.client(), stopped.clone());
            let rounds = Arc::clone(&rounds);
            tokio::spawn(async move {
                let mut round = 0;
                while !stopped.has_changed().unwrap_or(true) {
                    round += 1;
                    let content = Content::new(writer * 1_000_003 + round, round * 2_500 % 200_000);
                    write(&client, &format!("{writer}/{}", round % 7), content)
                        .await
                        .unwrap();
                    if round % 3 == 0 {
                        delete(&client, &format!("{writer}/{}", round % 5)).await;
                    }
                    rounds[writer as usize].store(round, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut looks = 0;
    while looks < 5 || rounds.iter().any(|round| round.load(Ordering::Relaxed) < 5) {
        let failed = writers.iter().any(JoinHandle::is_finished);
        assert!(!failed, "a writer ended before it was told to");
        home.verify().await;
        looks += 1;
    }
    stop.send_replace(());
    for writer in writers {
        writer.await.unwrap();
    }
    home.verify().await;
    server.stop().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_exits_with_64_and_names_its_lines() {
    let home = Home::with_local(&["one"]);
    let right = fs::read_to_string(home.write_config()).unwrap();
    let lines = right.lines().count();
    fs::write(
        home.config(),
        format!("{right}routing_stratgy: pack\nreplication:\n  factor: 2\n"),
    )
    .unwrap();
    let done = home.run_as_written(&["serve"]).await;
    assert_eq!(done.code, Some(64), "{done:?}");
    let at = |line: usize| format!("{}:{line}: ", home.config().display());
    assert!(
        done.err
            .contains(&format!("{}routing_stratgy", at(lines + 1))),
        "{done:?}"
    );
    assert!(
        done.err.contains("routing_strategy"),
        "the nearest known name: {done:?}"
    );
    assert!(done.err.contains(&at(lines + 3)), "{done:?}");
    assert!(
        !home.database.exists() && !home.path("one").exists(),
        "nothing was touched"
    );
}
