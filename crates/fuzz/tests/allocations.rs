//! Replays the corpus of heads where allocations are counted: in a process that does nothing else.

use std::alloc::System;
use std::fs;
use std::path::Path;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_head_is_read_within_its_allocation_bound() {
    let before = COUNTING.stats().bytes_allocated;
    let mut inputs = 0;
    for folder in ["corpus/heads", "finds/heads"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(&folder).expect("the folder is read") {
            let path = entry.expect("the folder is read").path();
            println!("{}", path.display());
            fuzz::heads::check(&fs::read(&path).expect("the input is read"));
            inputs += 1;
        }
    }
    assert!(inputs > 1, "{inputs} inputs");
    assert!(
        COUNTING.stats().bytes_allocated > before,
        "nothing is counted"
    );
}
