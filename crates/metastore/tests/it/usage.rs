//! Usage by month: what is added stays, and whoever counts learns of it exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use base::{Month, Traffic};
use futures_util::FutureExt as _;
use metastore::model::UsageRow;
use metastore::{Error, Landing, Tuning};

use crate::support::Db;

on_each_database! {
    usage_adds_up_by_backend_and_month,
    counts_learn_of_their_commit_even_where_nobody_waits,
    counts_of_a_bad_row_are_told_so,
}

on_cut_connections! {
    usage_adds_up_by_backend_and_month,
}

on_files! {
    counts_that_a_full_disk_refused_are_told_so,
}

/// Extended result code of SQLite: the disk is full.
const FULL: i32 = 13;

/// Counts how often it landed, and how often it was let go.
#[derive(Default)]
struct Told {
    landed: AtomicU32,
    dropped: AtomicU32,
}

struct Counts(Arc<Told>);

impl Landing for Counts {
    fn landed(self: Box<Self>) {
        self.0.landed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Told {
    fn seen(&self) -> (u32, u32) {
        let landed = self.landed.load(Ordering::SeqCst);
        (landed, self.dropped.load(Ordering::SeqCst))
    }
}

fn month(text: &str) -> Month {
    text.parse().unwrap()
}

const SOME: Traffic = Traffic {
    requests: 3,
    egress: 1000,
    ingress: 7,
};

async fn usage_adds_up_by_backend_and_month(db: Db) {
    let open = db.open().await;
    let told = Arc::new(Told::default());
    let row = |backend, month_text: &str, traffic| UsageRow {
        backend,
        month: month(month_text),
        traffic,
    };
    let (one, two) = (open.one(), open.two());
    for rows in [
        vec![row(one, "2026-01", SOME), row(two, "2026-01", SOME)],
        vec![row(one, "2026-01", SOME), row(one, "2026-02", SOME)],
        vec![],
    ] {
        let counts = Box::new(Counts(Arc::clone(&told)));
        open.store.add_usage(rows, counts).await.unwrap();
    }
    assert_eq!(told.seen(), (3, 3));
    drop(open);
    let open = db.open().await;
    let found = open.store.usage(month("2026-01")).await.unwrap();
    let expected = [
        row(one, "2026-01", SOME.plus(SOME)),
        row(two, "2026-01", SOME),
    ];
    assert_eq!(found, expected);
    let found = open.store.usage(month("2026-02")).await.unwrap();
    assert_eq!(found, [row(one, "2026-02", SOME)]);
    assert_eq!(open.store.usage(month("2026-03")).await.unwrap(), []);
    open.check().await;
}

async fn counts_learn_of_their_commit_even_where_nobody_waits(db: Db) {
    let open = db.open().await;
    let told = Arc::new(Told::default());
    let row = UsageRow {
        backend: open.one(),
        month: month("2026-01"),
        traffic: SOME,
    };
    let counts = Box::new(Counts(Arc::clone(&told)));
    // Queued, and then the caller is gone.
    assert!(
        open.store
            .add_usage(vec![row], counts)
            .now_or_never()
            .is_none()
    );
    open.store.close().await.unwrap();
    assert_eq!(told.seen(), (1, 1));
    drop(open);
    let open = db.open().await;
    assert_eq!(open.store.usage(row.month).await.unwrap(), [row]);
}

async fn counts_that_a_full_disk_refused_are_told_so(db: Db) {
    let full = Arc::new(AtomicBool::new(true));
    let commit_fault: Option<Arc<dyn Fn() -> Option<i32> + Send + Sync>> = {
        let full = Arc::clone(&full);
        Some(Arc::new(move || {
            full.load(Ordering::SeqCst).then_some(FULL)
        }))
    };
    full.store(false, Ordering::SeqCst);
    let open = db
        .open_tuned(Tuning {
            commit_fault,
            ..Tuning::default()
        })
        .await
        .unwrap();
    let row = UsageRow {
        backend: open.one(),
        month: month("2026-01"),
        traffic: SOME,
    };
    let told = Arc::new(Told::default());
    let counts = || Box::new(Counts(Arc::clone(&told)));
    full.store(true, Ordering::SeqCst);
    let failed = open.store.add_usage(vec![row], counts()).await;
    assert!(matches!(failed, Err(Error::Full { .. })), "{failed:?}");
    assert_eq!(told.seen(), (0, 1));
    full.store(false, Ordering::SeqCst);
    assert_eq!(open.store.usage(row.month).await.unwrap(), []);
}

async fn counts_of_a_bad_row_are_told_so(db: Db) {
    let open = db.open().await;
    let row = UsageRow {
        backend: open.one(),
        month: month("2026-01"),
        traffic: SOME,
    };
    let told = Arc::new(Told::default());
    let counts = || Box::new(Counts(Arc::clone(&told)));
    // A bad row fails the job alone, and all of it.
    let bad = UsageRow {
        traffic: Traffic {
            egress: u64::MAX,
            ..Traffic::NONE
        },
        ..row
    };
    let refused = open.store.add_usage(vec![row, bad], counts()).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    assert_eq!(told.seen(), (0, 1));
    assert_eq!(open.store.usage(row.month).await.unwrap(), []);
    open.store.close().await.unwrap();
    let late = open.store.add_usage(vec![row], counts()).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    assert_eq!(told.seen(), (0, 2));
}
