//! The guard changes nothing of what a healthy backend promises.

use std::sync::Arc;

use backend::{GuardOptions, Guarded, MemoryBackend, NoMeter, conformance};

fn guarded() -> Guarded {
    let memory = MemoryBackend::new("memory".parse().expect("a legal name"));
    Guarded::new(Arc::new(memory), GuardOptions::DEFAULT, Arc::new(NoMeter))
}

macro_rules! instantiate {
    ($($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                conformance::$case(&guarded(), concat!("c/", stringify!($case), "/")).await;
            }
        )*
    };
}

backend::conformance_cases!(instantiate);
