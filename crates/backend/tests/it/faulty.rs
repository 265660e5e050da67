//! The failure injector: what it says happened is what happened.

use std::sync::Arc;

use backend::faulty::{Fault, Faults, FaultyBackend, Rates};
use backend::{
    BackendKey, DeleteTarget, Effect, Kind, MemoryBackend, ObjectBackend, Payload, PutMeta,
    conformance,
};
use bytes::Bytes;
use futures_util::StreamExt as _;

fn faulty(faults: &Faults) -> (FaultyBackend, Arc<MemoryBackend>) {
    let memory = Arc::new(MemoryBackend::new("memory".parse().expect("a legal name")));
    let inner: Arc<dyn ObjectBackend> = Arc::<MemoryBackend>::clone(&memory);
    (FaultyBackend::new(inner, faults.clone()), memory)
}

macro_rules! healthy {
    ($($case:ident),* $(,)?) => {
        mod without_faults {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let (backend, _memory) = faulty(&Faults::none());
                    conformance::$case(&backend, concat!("c/", stringify!($case), "/")).await;
                }
            )*
        }
    };
}

backend::conformance_cases!(healthy);

fn key() -> BackendKey {
    BackendKey::new("a/b").expect("a legal key")
}

fn payload() -> Payload {
    Payload::from_bytes(Bytes::from_static(b"0123456789"))
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_put_has_the_effect_that_it_names() {
    let cases = [
        (Fault::Refuse, Some(Effect::None), false),
        (Fault::Full, Some(Effect::None), false),
        (Fault::Stall, Some(Effect::Unknown), false),
        (Fault::Cut, Some(Effect::Unknown), false),
        (Fault::LoseReply, Some(Effect::Unknown), true),
        (Fault::Late, Some(Effect::Unknown), false),
    ];
    for (fault, effect, happened) in cases {
        let faults = Faults::none();
        let (backend, memory) = faulty(&faults);
        faults.script("put", fault);
        let outcome = backend.put(&key(), &PutMeta::default(), payload()).await;
        assert_eq!(outcome.err().map(|error| error.effect), effect, "{fault:?}");
        assert_eq!(memory.object("a/b").is_some(), happened, "{fault:?}");
        assert_eq!(faults.land().await, usize::from(fault == Fault::Late));
        assert_eq!(
            memory.object("a/b").is_some(),
            happened || fault == Fault::Late
        );
        backend
            .put(&key(), &PutMeta::default(), payload())
            .await
            .expect("one fault was scripted");
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_a_get_is_what_it_names() {
    let faults = Faults::none();
    let (backend, _memory) = faulty(&faults);
    backend
        .put(&key(), &PutMeta::default(), payload())
        .await
        .expect("no fault yet");
    faults.script("get", Fault::Missing);
    let error = backend.get(&key(), None, None).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    for (fault, fails) in [(Fault::CutBody, true), (Fault::ShortBody, false)] {
        faults.script("get", fault);
        let fetched = backend
            .get(&key(), None, None)
            .await
            .expect("only the body is bad");
        let chunks: Vec<_> = fetched.body.collect().await;
        let bytes: usize = chunks.iter().flatten().map(Bytes::len).sum();
        assert!(bytes < 10, "{fault:?} yields {bytes}");
        assert_eq!(chunks.iter().any(Result::is_err), fails, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_delete_lands_when_it_is_told_to() {
    let faults = Faults::none();
    let (backend, memory) = faulty(&faults);
    backend
        .put(&key(), &PutMeta::default(), payload())
        .await
        .expect("no fault yet");
    faults.script("delete", Fault::Late);
    let target = DeleteTarget {
        key: key(),
        version: None,
    };
    let outcomes = backend.delete(&[target]).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().effect, Effect::Unknown);
    assert!(memory.object("a/b").is_some());
    assert_eq!(faults.land().await, 1);
    assert!(memory.object("a/b").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_draws_the_same_faults_and_healing_ends_them() {
    let rates = Rates {
        refuse: 200,
        cut: 100,
        lose_reply: 100,
        late: 50,
        ..Rates::NONE
    };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let faults = Faults::seeded(42, rates);
        let (backend, _memory) = faulty(&faults);
        let mut kinds = Vec::new();
        for _ in 0..200 {
            let outcome = backend.put(&key(), &PutMeta::default(), payload()).await;
            kinds.push(outcome.err().map(|error| (error.kind, error.effect)));
        }
        assert!(faults.injected().len() >= 4, "{faults:?}");
        faults.heal();
        backend
            .put(&key(), &PutMeta::default(), payload())
            .await
            .expect("it was healed");
        runs.push((kinds, faults.injected()));
    }
    assert_eq!(runs[0], runs[1]);
}
