//! Several instances over one catalogue on PostgreSQL.

use std::time::Duration;

use base::Precondition;
use futures_util::future::join_all;
use metastore::model::{CleanupOutcome, CleanupReport, Known, Removed, Verdict};
use metastore::{Error, Store};
use testbed::Database;
use tokio::time::{Instant, sleep};

use crate::proxy::{Direction, Proxy};
use crate::support::{Db, Open, key};

/// How long a test waits for what happens on its own.
const PATIENCE: Duration = Duration::from_secs(30);

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The sums hold, whoever counts; the room of one instance among several is its own business.
async fn sound(open: &Open<'_>) {
    let verification = open.store.verify().await.unwrap();
    assert_eq!(verification.contradictions, Vec::<String>::new());
    for sums in &verification.backends {
        assert!(sums.exact(), "{sums:?}");
    }
}

#[tokio::test]
async fn what_one_instance_was_told_every_other_sees_at_once() {
    let db = Db::postgres();
    let (one, two) = (
        db.instance(db.database()).await,
        db.instance(db.database()).await,
    );
    assert_eq!((one.bucket, &one.backends), (two.bucket, &two.backends));
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        let version = writer.put(writer.one(), "k", n).await;
        let plan = reader.plan("k").await.unwrap();
        assert_eq!(plan.object.version, version.version);
        let found = reader.store.object(reader.bucket, &key("k")).await.unwrap();
        assert_eq!(found.unwrap().version, version.version);
    }
    let removed = two.store.remove(two.removal("k")).await.unwrap();
    assert!(matches!(removed, Removed::Gone { .. }));
    assert_eq!(one.plan("k").await, None);
    sound(&one).await;
    sound(&two).await;
}

#[tokio::test]
async fn of_conditional_writers_on_several_instances_exactly_one_wins() {
    let db = Db::postgres();
    let instances = join_all((0..3).map(|_| db.instance(db.database()))).await;
    for round in 0..10 {
        let name = format!("k{round}");
        let writes = instances.iter().map(|open| {
            let name = &name;
            async move {
                open.put_if(open.one(), name, 1, Precondition::Absent)
                    .await
                    .0
            }
        });
        let verdicts = join_all(writes).await;
        let won = verdicts
            .iter()
            .filter(|verdict| matches!(verdict, Verdict::Committed { .. }));
        assert_eq!(won.count(), 1, "{verdicts:?}");
    }
    sound(&instances[0]).await;
}

#[tokio::test]
async fn instances_that_race_for_the_last_bytes_fill_a_backend_to_the_last_and_never_exceed_it() {
    const LIMIT: u64 = 5_000;
    let db = Db::postgres();
    let instances = join_all((0..3).map(|_| db.instance(db.database()))).await;
    for open in &instances {
        open.store.set_limit(open.one(), Some(LIMIT));
    }
    let writers = (0..150).map(|n| {
        let open = &instances[n % 3];
        async move {
            let size = 40;
            let Ok((blob, intent)) = open.intent(open.one(), size).await else {
                return 0;
            };
            let intents = vec![intent];
            let version = open.version(&format!("k{n}"), size, blob, &intents);
            let (verdict, _) = open.store.commit(version, intents).await;
            assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
            size
        }
    });
    let written: u64 = join_all(writers).await.into_iter().sum();
    // 125 of 150 fit: nobody was refused while somebody held what would have sufficed.
    assert_eq!(written, LIMIT);
    for open in &instances {
        let refused = open.store.reserve(open.one(), 1).await;
        assert!(matches!(refused, Err(Error::NoRoom { .. })));
        sound(open).await;
    }
    let sums = &instances[0].store.verify().await.unwrap().backends[0];
    assert_eq!(sums.used.1 + sums.orphan.1, LIMIT);
}

#[tokio::test]
async fn room_that_one_instance_does_not_use_goes_to_the_one_that_wants_it() {
    let db = Db::postgres();
    let (one, two) = (
        db.instance(db.database()).await,
        db.instance(db.database()).await,
    );
    for open in [&one, &two] {
        open.store.set_limit(open.one(), Some(1000));
    }
    // All of it, and given back in memory: it stays leased.
    drop(one.store.reserve(one.one(), 1000).await.unwrap());
    let room = two.store.reserve(two.one(), 700).await.unwrap();
    let refused = one.store.reserve(one.one(), 301).await;
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    let rest = one.store.reserve(one.one(), 300).await.unwrap();
    drop((room, rest));
    sound(&one).await;
}

#[tokio::test]
async fn an_instance_that_was_taken_for_dead_does_no_harm_and_begins_again() {
    let db = Db::postgres();
    let proxy = Proxy::start(db.database()).await;
    let lease = Duration::from_millis(900);
    let mut options = db.connect_options(&proxy.to(db.database()));
    options.server.lease = lease;
    let asleep = db
        .set_up(Store::connect(options).await.unwrap())
        .await
        .unwrap();
    let mut options = db.connect_options(db.database());
    options.server.lease = lease;
    let awake = db
        .set_up(Store::connect(options).await.unwrap())
        .await
        .unwrap();
    for open in [&asleep, &awake] {
        open.store.set_limit(open.one(), Some(1000));
    }
    asleep.put(asleep.one(), "k", 10).await;
    let (blob, intent) = asleep.intent(asleep.one(), 20).await.unwrap();
    let copy = intent.copy();
    let version = asleep.version("k", 20, blob, std::slice::from_ref(&intent));
    // And with a cleanup row in its hands.
    asleep.put(asleep.one(), "gone", 5).await;
    asleep.store.remove(asleep.removal("gone")).await.unwrap();
    db.clock.advance_ms(60_000);
    let visible = Duration::from_secs(300);
    let claimed = asleep.store.claim_cleanup(10, visible).await.unwrap();
    assert_eq!(claimed.len(), 1);
    // And as the one that does some background work.
    assert!(asleep.store.lease_worker("work", visible).await.unwrap());
    assert!(!awake.store.lease_worker("work", visible).await.unwrap());

    // It sleeps for longer than its lease: the other one buries it, and its room returns.
    proxy.hold(true);
    until("the sleeper is buried", async || {
        let known = awake.store.known_copy(copy).await.unwrap();
        (known == Known::Cleanup).then_some(())
    })
    .await;
    let room = awake.store.reserve(awake.one(), 960).await.unwrap();
    drop(room);
    let freed = awake.store.claim_cleanup(10, visible).await.unwrap();
    assert!(freed.iter().any(|item| item.id == claimed[0].id));
    let outcome = CleanupOutcome::Done;
    let reports = freed.iter().map(|item| CleanupReport {
        id: item.id,
        outcome: outcome.clone(),
    });
    awake.store.report_cleanup(reports.collect()).await.unwrap();

    assert!(awake.store.lease_worker("work", visible).await.unwrap());

    // It wakes up with a write in its hands: the bytes were given away, so it cannot commit them.
    proxy.hold(false);
    let (verdict, left) = asleep.store.commit(version.clone(), vec![intent]).await;
    match verdict {
        Ok(Verdict::IntentGone) | Err(Error::Unavailable { .. } | Error::IntentGone { .. }) => {}
        other => panic!("{other:?}"),
    }
    drop(left);
    let plan = awake.plan("k").await.unwrap();
    assert_ne!(plan.object.version, version.version);
    sound(&awake).await;

    // From then on it works like any other.
    until("the sleeper writes again", async || {
        let (blob, intent) = asleep.intent(asleep.one(), 5).await.ok()?;
        let intents = vec![intent];
        let version = asleep.version("again", 5, blob, &intents);
        let (verdict, _) = asleep.store.commit(version, intents).await;
        matches!(verdict, Ok(Verdict::Committed { .. })).then_some(())
    })
    .await;
    assert!(awake.plan("again").await.is_some());
    sound(&asleep).await;
    sound(&awake).await;
}

/// The connection is cut after each byte of what a write sends, and of what it is answered.
#[tokio::test]
async fn a_write_whose_connection_is_cut_anywhere_happens_once() {
    let db = Db::postgres();
    let proxy = Proxy::start(db.database()).await;
    let open = db.instance(&proxy.to(db.database())).await;
    let mut cuts = 0;
    for (direction, stride) in [(Direction::ToServer, 20), (Direction::ToClient, 3)] {
        for step in 0..60 {
            let name = format!("{direction:?}-{step}");
            let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
            let intents = vec![intent];
            let version = open.version(&name, 10, blob, &intents);
            proxy.cut_after(direction, step * stride);
            let (verdict, left) = open.store.commit(version.clone(), intents).await;
            assert!(
                matches!(verdict, Ok(Verdict::Committed { .. })) && left.is_empty(),
                "{direction:?} {step}: {verdict:?}"
            );
            cuts += u32::from(proxy.has_cut(direction));
            proxy.cut_after(direction, i64::MAX / 2);
            let plan = open.plan(&name).await.unwrap();
            assert_eq!(plan.object.version, version.version);
        }
    }
    assert!(cuts > 60, "{cuts}");
    assert_eq!(open.room(open.one()).used, 1200);
    sound(&open).await;
}

#[tokio::test]
async fn an_intent_whose_connection_is_cut_anywhere_is_opened_once() {
    let db = Db::postgres();
    let proxy = Proxy::start(db.database()).await;
    let open = db.instance(&proxy.to(db.database())).await;
    let mut cuts = 0;
    for (direction, stride) in [(Direction::ToServer, 17), (Direction::ToClient, 3)] {
        for step in 0..30 {
            proxy.cut_after(direction, step * stride);
            let (_, intent) = open.intent(open.one(), 10).await.unwrap();
            cuts += u32::from(proxy.has_cut(direction));
            proxy.cut_after(direction, i64::MAX / 2);
            open.store.withdraw_intent(intent).await.unwrap();
        }
    }
    assert!(cuts > 30, "{cuts}");
    assert_eq!(open.room(open.one()).reserved, 0);
    sound(&open).await;
}

#[tokio::test]
async fn a_database_that_is_silent_is_told_and_nothing_is_lost() {
    let db = Db::postgres();
    let proxy = Proxy::start(db.database()).await;
    let open = db.instance(&proxy.to(db.database())).await;
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let version = open.version("k", 10, blob, std::slice::from_ref(&intent));
    // Every new connection is cut at once, and this one in the middle of the write.
    let gone = tokio::spawn({
        let cut = proxy.clone();
        async move {
            loop {
                cut.cut_after(Direction::ToServer, 0);
                tokio::task::yield_now().await;
            }
        }
    });
    let (verdict, left) = open.store.commit(version.clone(), vec![intent]).await;
    assert!(
        matches!(verdict, Err(Error::Unavailable { .. })),
        "{verdict:?}"
    );
    assert!(left.is_empty(), "what is unknown stays with the writer");
    let refused = open.store.remove(open.removal("k")).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    gone.abort();
    proxy.cut_after(Direction::ToServer, i64::MAX / 2);
    // What was under way is finished when the database answers again.
    until("the write happened, whole", async || {
        let plan = open.store.plan(open.bucket, &key("k")).await.ok()??;
        (plan.object.version == version.version).then_some(())
    })
    .await;
    until("writes go on", async || {
        open.store.remove(open.removal("k")).await.ok()
    })
    .await;
    sound(&open).await;
}

#[tokio::test]
async fn instances_that_start_together_make_one_catalogue() {
    let db = Db::postgres();
    let started = join_all((0..8).map(|_| Store::connect(db.connect_options(db.database())))).await;
    let stores: Vec<Store> = started.into_iter().map(Result::unwrap).collect();
    let first = stores[0].catalogue();
    assert!(stores.iter().all(|store| store.catalogue() == first));
    let instances = stores[0].instances().await.unwrap();
    assert_eq!(instances.len(), 8);
    assert_eq!(instances.iter().filter(|instance| instance.this).count(), 1);
    for store in stores {
        store.close().await.unwrap();
    }
    // Who said goodbye left its number to the next.
    let store = Store::connect(db.connect_options(db.database()))
        .await
        .unwrap();
    assert_eq!(store.instances().await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_host_that_takes_no_writes_or_does_not_answer_is_passed_over() {
    let db = Db::postgres();
    let mut options = db.connect_options(db.database());
    let closed = Database {
        port: 1,
        ..db.database().clone()
    };
    options
        .server
        .hosts
        .insert(0, ("127.0.0.1".into(), closed.port));
    let open = db
        .set_up(Store::connect(options).await.unwrap())
        .await
        .unwrap();
    open.put(open.one(), "k", 1).await;
    let mut options = db.connect_options(db.database());
    options.server.hosts = vec![("127.0.0.1".into(), closed.port)];
    let refused = Store::connect(options).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );

    // As on a standby.
    let name = &db.database().name;
    db.database().run(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    let refused = Store::connect(db.connect_options(db.database())).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
}

async fn refused(db: &Db, statements: &str) -> Error {
    db.database().run(statements);
    match Store::connect(db.connect_options(db.database())).await {
        Err(error) => error,
        Ok(store) => panic!("{store:?}"),
    }
}

#[tokio::test]
async fn databases_of_others_and_of_the_future_are_refused_by_name() {
    let db = Db::postgres();
    let error = refused(
        &db,
        "CREATE TABLE backend_quotas (backend_name text PRIMARY KEY);
         CREATE TABLE object_locations (object_key text, backend_name text)",
    )
    .await;
    assert!(
        matches!(&error, Error::Foreign { found, .. } if found.contains("Go program")),
        "{error:?}"
    );
    let db = Db::postgres();
    let error = refused(&db, "CREATE TABLE catalogue (name text)").await;
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    let db = Db::postgres();
    drop(db.instance(db.database()).await);
    let error = refused(&db, "UPDATE catalogue SET schema_version = 99").await;
    assert!(
        matches!(error, Error::TooNew { found: 99, .. }),
        "{error:?}"
    );
    let db = Db::postgres();
    drop(db.instance(db.database()).await);
    let error = refused(&db, "UPDATE catalogue SET retired = 'moved'").await;
    assert!(matches!(error, Error::Retired { .. }), "{error:?}");
}

#[tokio::test]
async fn a_copied_database_is_another_incarnation_in_recovery_state() {
    let db = Db::postgres();
    let open = db.instance(db.database()).await;
    open.put(open.one(), "k", 10).await;
    let before = open.store.catalogue();
    open.store.close().await.unwrap();
    // As pg_dump and pg_restore would: another table of the same name.
    db.database().run(
        "ALTER TABLE catalogue RENAME TO dumped;
         CREATE TABLE catalogue (LIKE dumped INCLUDING ALL);
         INSERT INTO catalogue SELECT * FROM dumped; DROP TABLE dumped",
    );
    let open = db.instance(db.database()).await;
    let after = open.store.catalogue();
    assert_eq!(after.uuid, before.uuid);
    assert_ne!(after.incarnation, before.incarnation);
    assert!(after.recovery.is_some());
    let visible = Duration::from_secs(1);
    open.put(open.one(), "k", 10).await;
    assert_eq!(open.store.claim_cleanup(10, visible).await.unwrap(), []);
}

/// What an earlier state of the database can hold of a running instance.
const EARLIER: [(&str, &str); 4] = [
    (
        "batches ago",
        "UPDATE instances SET batch_seq = batch_seq - 2",
    ),
    ("before it began", "DELETE FROM instances"),
    (
        "in an earlier life of it",
        "UPDATE instances SET epoch = epoch - 1, batch_seq = batch_seq + 40",
    ),
    (
        "batches ago, and buried since",
        "UPDATE instances SET epoch = epoch + 1, live = false, batch_seq = batch_seq - 2",
    ),
];

#[tokio::test]
async fn a_database_that_goes_back_in_time_under_an_instance_enters_the_recovery_state() {
    for (state, statement) in EARLIER {
        let db = Db::postgres();
        let open = db.instance(db.database()).await;
        let other = db.instance(db.database()).await;
        open.put(open.one(), "k", 10).await;
        let number = open.store.instances().await.unwrap();
        let number = number.iter().find(|instance| instance.this).unwrap().id;
        db.database()
            .run(&format!("{statement} WHERE instance = {number}"));
        let failed = open.store.remove(open.removal("k")).await;
        assert!(
            matches!(failed, Err(Error::Unavailable { .. })),
            "{state}: {failed:?}"
        );
        // Before anybody else has done anything, and on all instances.
        assert!(open.store.catalogue().recovery.is_some(), "{state}");
        until("the other one knows", async || {
            other.store.catalogue().recovery.map(drop)
        })
        .await;
        assert!(open.plan("k").await.is_some());
        for store in [&open.store, &other.store] {
            let claimed = store.claim_cleanup(10, Duration::from_secs(1)).await;
            assert_eq!(claimed.unwrap(), [], "{state}");
        }
    }
}

#[tokio::test]
async fn a_sleeper_whose_number_was_used_meanwhile_begins_again_without_a_recovery() {
    let db = Db::postgres();
    let sleeper = db.instance(db.database()).await;
    for n in 0..4 {
        sleeper.put(sleeper.one(), &format!("k{n}"), 10).await;
    }
    Db::silence(db.database());
    // It takes the number of the silent one, does less than that one did, and leaves.
    let next = db.instance(db.database()).await;
    next.store.close().await.unwrap();
    let refused = sleeper.store.remove(sleeper.removal("k0")).await;
    assert!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(sleeper.store.catalogue().recovery, None);
    until("it has begun again", async || {
        sleeper.store.remove(sleeper.removal("k0")).await.ok()
    })
    .await;
    let open = db.instance(db.database()).await;
    assert_eq!(open.store.catalogue().recovery, None);
}

#[tokio::test]
async fn what_was_announced_before_a_backup_and_became_an_object_since_is_never_given_up() {
    let db = Db::postgres();
    let open = db.instance(db.database()).await;
    let other = db.instance(db.database()).await;
    let dump = tempfile::tempdir().unwrap();
    let dump = dump.path().join("dump");
    let dump = dump.to_str().unwrap();
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let (copy, intents) = (intent.copy(), vec![intent]);
    let version = open.version("k", 10, blob, &intents);
    db.database()
        .client("pg_dump", &["--format=custom", "--file", dump]);
    let (verdict, _) = open.store.commit(version, intents).await;
    assert!(
        matches!(verdict, Ok(Verdict::Committed { .. })),
        "{verdict:?}"
    );
    other.put(other.one(), "later", 10).await;
    db.database().client(
        "pg_restore",
        &["--clean", "--if-exists", "--single-transaction", dump],
    );
    assert_eq!(db.count("write_intents"), 1);
    // Whoever notices first: its number is taken for silent, and its intents for abandoned.
    until("the other one notices", async || {
        let _refused = other.store.remove(other.removal("none")).await;
        other.store.catalogue().recovery.map(drop)
    })
    .await;
    Db::silence(db.database());
    until("everything that can be given up is", async || {
        let _refused = open.store.remove(open.removal("none")).await;
        for store in [&open.store, &other.store] {
            store.leave_recovery().await.ok()?;
            store.reap_intents(100).await.ok()?;
        }
        (db.count("write_intents") == 0).then_some(())
    })
    .await;
    assert_eq!(db.count("cleanup_queue"), 0);
    let known = open.store.known_copy(copy).await.unwrap();
    assert_eq!(known, Known::No);
}

#[tokio::test]
async fn a_number_that_is_given_again_after_a_restore_is_another_life() {
    let db = Db::postgres();
    let open = db.instance(db.database()).await;
    let life = async |store: &Store| {
        let instances = store.instances().await.unwrap();
        let found = instances.into_iter().find(|instance| instance.this);
        found.map(|instance| (instance.id, instance.epoch)).unwrap()
    };
    let before = life(&open.store).await;
    // The backup is from before it began, and another process starts first.
    db.database().run("DELETE FROM instances");
    let first = db.instance(db.database()).await;
    let taken = life(&first.store).await;
    assert!(
        before.0 == taken.0 && before.1 < taken.1,
        "{before:?} {taken:?}"
    );
}

#[tokio::test]
async fn one_instance_at_a_time_does_the_work_that_is_leased() {
    let db = Db::postgres();
    let (one, two) = (
        db.instance(db.database()).await,
        db.instance(db.database()).await,
    );
    let long = Duration::from_secs(600);
    let lease = async |open: &Open<'_>, lasts| open.store.lease_worker("work", lasts).await;
    assert!(lease(&one, long).await.unwrap());
    assert!(!lease(&two, long).await.unwrap());
    assert!(two.store.lease_worker("other", long).await.unwrap());
    // What is not renewed runs out.
    assert!(lease(&one, Duration::from_millis(1)).await.unwrap());
    until("the lease runs out", async || {
        lease(&two, long).await.unwrap().then_some(())
    })
    .await;
    assert!(!lease(&one, long).await.unwrap());
    // Who leaves leaves nothing behind.
    two.store.close().await.unwrap();
    assert!(lease(&one, long).await.unwrap());
    // Of many that ask at once one has it.
    let db = Db::postgres();
    let mut many = Vec::new();
    for _ in 0..4 {
        many.push(db.instance(db.database()).await);
    }
    let asked = join_all(many.iter().map(|open| lease(open, long))).await;
    let granted = asked
        .into_iter()
        .filter(|granted| *granted.as_ref().unwrap());
    assert_eq!(granted.count(), 1);
}
