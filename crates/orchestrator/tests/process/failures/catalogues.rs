//! A catalogue that is older than its backends, in use, or not one; and a configuration that is wrong.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backend::{DeleteTarget, ObjectBackend as _};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::{
    SMALL_BYTES, STREAMED_BYTES, can_unshare, is_absent, key, reads, reads_as, reads_later, store,
    write,
};
use crate::support::content::Content;
use crate::support::home::{Home, PROGRAM};
use crate::support::raw;
use crate::support::server::Server;

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
    assert_eq!(
        health.body,
        br#"{"status":"degraded","reasons":["catalogue_in_recovery"]}"#
    );
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

/// The locks that the kernel knows of this process on a file: kinds and modes, such as `POSIX READ`.
fn locks(server: &Server, file: &Path) -> Vec<String> {
    let inode = format!(":{}", fs::metadata(file).unwrap().ino());
    let pid = server.pid().as_raw_nonzero().to_string();
    let all = fs::read_to_string("/proc/locks").unwrap();
    let of = all.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, kind, _, mode, holder, place, ..] = words[..] else {
            return None;
        };
        (holder == pid && place.ends_with(&inode)).then(|| format!("{kind} {mode}"))
    });
    let mut found: Vec<_> = of.collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_lock_file_and_under_another_name_a_catalogue_is_still_in_use() {
    let mut home = Home::with_local(&["one"]);
    let server = home.serve().await;
    store(&server.client(), "kept", SMALL_BYTES).await;
    let (own, other) = (home.database.clone(), home.path("other.db"));
    let held = locks(&server, &own);
    assert_eq!(held, ["FLOCK WRITE", "POSIX READ"]);
    fs::remove_file(home.path("catalogue.db.lock")).unwrap();
    let done = home.run(&["serve"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("in use by another process"), "{done:?}");
    for link in [fs::hard_link::<&Path, &Path>, std::os::unix::fs::symlink] {
        link(&own, &other).unwrap();
        home.database.clone_from(&other);
        for command in [&["serve"][..], &["reconcile", "--recover"]] {
            let done = home.run(command).await;
            assert_eq!(done.code, Some(1), "{done:?}");
            assert!(done.err.contains("in use by another process"), "{done:?}");
        }
        fs::remove_file(&other).unwrap();
        home.database.clone_from(&own);
    }
    // SQLite's own locks are where they were, beside readers too.
    home.verify().await;
    assert_eq!(locks(&server, &own), held);
    store(&server.client(), "more", SMALL_BYTES).await;
    server.stop().await;
    home.verify().await;
    home.nothing_unknown().await;
}

/// The catalogue's file and those whose names begin with its name.
fn files(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.dir()).unwrap().map(Result::unwrap);
    let names = entries.map(|entry| entry.path());
    let of = |path: &PathBuf| path.to_string_lossy().contains("/catalogue.db");
    names.filter(of).collect()
}

fn remove_files(home: &Home) {
    for file in files(home) {
        fs::remove_file(file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_whose_files_vanish_before_a_stop_is_copied_and_the_exit_code_tells() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    store(&server.client(), "kept", STREAMED_BYTES).await;
    remove_files(&home);
    let err = server.stop_failing().await;
    assert!(err.contains("removed or replaced"), "{err}");
    let left = files(&home);
    let [copy] = &left[..] else {
        panic!("only the copy is there: {left:?}");
    };
    fs::rename(copy, &home.database).unwrap();
    let done = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let server = home.serve().await;
    reads(&server.client(), "kept", STREAMED_BYTES).await;
    server.stop().await;
    home.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_that_is_overwritten_stops_writes_and_reads_and_is_recovered_from_a_backup() {
    let home = Home::with_local(&["one"]);
    let mut server = home.serve().await;
    let client = server.client();
    store(&client, "kept", STREAMED_BYTES).await;
    let backup = home.path("backup.db");
    let done = home
        .run(&["catalogue", "backup", "--to", backup.to_str().unwrap()])
        .await;
    assert_eq!(done.code, Some(0), "{done:?}");
    store(&client, "later", STREAMED_BYTES).await;
    let done = Command::new("cp")
        .args([&backup, &home.database])
        .status()
        .await;
    assert!(done.unwrap().success());
    server
        .logged(&["\"ERROR\"", "catalogue damaged or overwritten"])
        .await;
    let health = raw::plain_get(server.addr, "/health").await;
    assert_eq!(
        health.body,
        br#"{"status":"degraded","reasons":["catalogue_damaged"]}"#
    );
    let refused = write(&client, "never", Content::of_key("never", SMALL_BYTES)).await;
    assert!(refused.unwrap_err().contains("ServiceUnavailable"));
    reads_later(&client, "later").await;
    let err = server.stop_failing().await;
    assert!(err.contains("catalogue.db was overwritten"), "{err}");

    assert_eq!(
        fs::read(&home.database).unwrap(),
        fs::read(&backup).unwrap()
    );
    let done = home.run(&["serve"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("it is a backup"), "{done:?}");
    remove_files(&home);
    fs::copy(&backup, &home.database).unwrap();
    let done = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let server = home.serve().await;
    reads(&server.client(), "kept", STREAMED_BYTES).await;
    reads(&server.client(), "later", STREAMED_BYTES).await;
    server.stop().await;
    home.verify().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_whose_files_vanish_stops_writes_and_is_recovered_from_its_copy() {
    let home = Home::with_local(&["one"]);
    let mut server = home.serve().await;
    let client = server.client();
    store(&client, "kept", STREAMED_BYTES).await;
    remove_files(&home);
    server
        .logged(&["\"ERROR\"", "catalogue files removed or replaced"])
        .await;
    server
        .logged(&["\"ERROR\"", "catalogue copied from its open files"])
        .await;
    let health = raw::plain_get(server.addr, "/health").await;
    assert_eq!(
        (health.status, &*health.body),
        (
            200,
            &br#"{"status":"degraded","reasons":["catalogue_files_gone"]}"#[..]
        )
    );
    for bytes in [SMALL_BYTES, STREAMED_BYTES] {
        let refused = write(&client, "later", Content::of_key("later", bytes)).await;
        assert!(refused.unwrap_err().contains("ServiceUnavailable"));
    }
    let list = backend::ListRequest {
        prefix: String::new(),
        after: None,
        max_keys: 10,
    };
    let refused = client.list(&list).await.map(drop).unwrap_err();
    assert!(
        base::report(&refused)
            .to_string()
            .contains("ServiceUnavailable")
    );
    reads(&client, "kept", STREAMED_BYTES).await;
    let err = server.stop_failing().await;
    assert!(err.contains("removed or replaced"), "{err}");

    let left = files(&home);
    let [copy] = &left[..] else {
        panic!("only the copy is there: {left:?}");
    };
    fs::rename(copy, &home.database).unwrap();
    let done = home.run(&["reconcile", "--recover"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let server = home.serve().await;
    reads(&server.client(), "kept", STREAMED_BYTES).await;
    store(&server.client(), "later", STREAMED_BYTES).await;
    server.stop().await;
    home.verify().await;
    home.nothing_unknown().await;
}

/// As for a backend: the disk that fills up is a tmpfs that nobody else sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_catalogue_is_said_by_health_until_a_write_succeeds() {
    can_unshare().await;
    let mut home = Home::with_local(&["one"]);
    let disk = home.path("disk");
    fs::create_dir(&disk).unwrap();
    home.database = disk.join("catalogue.db");
    home.write_config();
    let script = format!(
        "mount -t tmpfs -o size=2m none '{}' && exec '{PROGRAM}' serve -config '{}'",
        disk.display(),
        home.config().display()
    );
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script]);
    let server = Server::start(command).await.unwrap();
    let client = server.client();
    let health = async || raw::plain_get(server.addr, "/health").await.body;
    let ok = br#"{"status":"ok"}"#;
    assert_eq!(health().await, ok);
    store(&client, "kept", SMALL_BYTES).await;
    let pid = server.pid().as_raw_nonzero().to_string();
    let inside = async |script: &str| {
        let done = Command::new("nsenter")
            .args(["-t", &pid, "-U", "-m", "--preserve-credentials", "sh", "-c"])
            .arg(script)
            .output()
            .await
            .unwrap();
        done.status.success()
    };
    let ballast = disk.join("ballast");
    let fill = format!("cat /dev/zero > '{}'", ballast.display());
    assert!(!inside(&fill).await, "the disk is full");
    let mut n = 0;
    let refused = loop {
        // The log may have blocks left that were its own before.
        match write(&client, &format!("k{n}"), Content::of_key("k", SMALL_BYTES)).await {
            Ok(()) => n += 1,
            Err(refused) => break refused,
        }
        assert!(n < 2_000);
    };
    assert!(refused.contains("InsufficientStorage"), "{refused}");
    assert_eq!(
        health().await,
        br#"{"status":"degraded","reasons":["catalogue_write_failed"]}"#
    );
    reads(&client, "kept", SMALL_BYTES).await;
    assert!(inside(&format!("rm '{}'", ballast.display())).await);
    store(&client, "after", SMALL_BYTES).await;
    assert_eq!(health().await, ok);
    server.stop().await;
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
async fn a_catalogue_is_verified_and_backed_up_beside_the_running_server() {
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
        let copy = home.path(&format!("copy-{looks}.db"));
        let done = home
            .run(&["catalogue", "backup", "--to", copy.to_str().unwrap()])
            .await;
        assert_eq!(done.code, Some(0), "{done:?}");
        let health = raw::plain_get(server.addr, "/health").await;
        assert_eq!(health.body, br#"{"status":"ok"}"#, "no alarm");
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
