//! Listing against a plain set, over the file system in memory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use base::BackendKey;
use bytes::Bytes;
use proptest::collection;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};
use tokio::runtime::{Builder, Runtime};

use super::LocalBackend;
use super::scripted::{Plant, ROOT, Scripted};
use super::store::Owners;
use crate::{ListRequest, ObjectBackend as _, Payload, PutMeta};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime for the test")
}

async fn holding(keys: &BTreeSet<String>) -> LocalBackend {
    let name = "local".parse().expect("a legal name");
    let disk = Arc::new(Scripted::new(Plant::Nothing));
    let backend = LocalBackend::over(name, disk, PathBuf::from(ROOT), Owners::One);
    for key in keys {
        let key = BackendKey::new(key).expect("a legal key");
        let payload = Payload::from_bytes(Bytes::from_static(b"x"));
        backend
            .put(&key, &PutMeta::default(), payload)
            .await
            .expect("the disk works");
    }
    backend
}

async fn listed(backend: &LocalBackend, prefix: &str, max_keys: u32) -> Vec<String> {
    let mut request = ListRequest {
        prefix: prefix.to_owned(),
        after: None,
        max_keys,
    };
    let mut keys = Vec::new();
    loop {
        let page = backend.list(&request).await.expect("the disk works");
        keys.extend(page.objects.into_iter().map(|object| object.key));
        if !page.truncated {
            return keys;
        }
        request.after = keys.last().cloned();
    }
}

#[test]
fn a_directory_larger_than_a_portion_is_listed_whole_and_in_order() {
    let mut keys: BTreeSet<String> = (0..2500).map(|n| format!("big/{n}")).collect();
    // Directories without a match and cut names lie between them.
    keys.extend((0..30).map(|n| format!("big/{n}/x")));
    keys.extend((0..5).map(|n| format!("big/5{}{n}", "y".repeat(300))));
    runtime().block_on(async {
        let backend = holding(&keys).await;
        let want: Vec<String> = keys.iter().cloned().collect();
        assert_eq!(listed(&backend, "big/", 1000).await, want);
        assert_eq!(listed(&backend, "", 333).await, want);
    });
}

fn keys() -> impl Strategy<Value = BTreeSet<String>> {
    let piece = prop_oneof![
        "[ab/]{1,3}",
        "[a-c.~%\u{1}]{1,2}",
        proptest::sample::select(vec![245usize, 249, 250, 251, 252, 253, 300])
            .prop_map(|length| "n".repeat(length)),
        any::<char>().prop_map(String::from),
    ];
    let key = collection::vec(piece, 1..5).prop_filter_map("a legal key", |pieces| {
        BackendKey::new(&pieces.concat()).map(|key| key.as_str().to_owned())
    });
    collection::btree_set(key, 0..25)
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(150))]
    #[test]
    fn any_page_is_what_a_sorted_set_gives(
        keys in keys(),
        from in any::<proptest::sample::Index>(),
        cut in 0usize..6,
        max_keys in 1u32..8,
        after in any::<proptest::sample::Index>(),
    ) {
        let sorted: Vec<&String> = keys.iter().collect();
        let prefix = match sorted.is_empty() {
            true => String::new(),
            false => from.get(&sorted).chars().take(cut).collect(),
        };
        let after = (!sorted.is_empty() && cut % 2 == 0).then(|| (*after.get(&sorted)).clone());
        let want: Vec<&String> = keys
            .iter()
            .filter(|key| key.starts_with(&prefix))
            .filter(|key| after.as_ref().is_none_or(|after| *key > after))
            .collect();
        runtime().block_on(async {
            let backend = holding(&keys).await;
            let request = ListRequest { prefix: prefix.clone(), after, max_keys };
            let page = backend.list(&request).await.expect("the disk works");
            let got: Vec<&String> = page.objects.iter().map(|object| &object.key).collect();
            let count = want.len().min(max_keys as usize);
            prop_assert_eq!(&got[..], &want[..count]);
            prop_assert_eq!(page.truncated, want.len() > count);
            Ok(())
        })?;
    }
}
