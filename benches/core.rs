//! How long the pure core takes for an event, a delivery and an attempt: `cargo bench --bench core`.

mod workloads;

use divan::Bencher;
use mimalloc::MiMalloc;

use workloads::{WORKLOADS, Workload};

/// As the program allocates.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    divan::main();
}

#[divan::bench(args = &WORKLOADS, sample_size = 100)]
fn core(bencher: Bencher, workload: &Workload) {
    bencher.bench_local((workload.prepare)());
}
