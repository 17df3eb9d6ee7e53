//! What the pure core does for an event, a delivery and an attempt, as pieces of work to be timed (`core`) and counted
//! (`instructions`): one list for both.

mod deciding;
mod matching;
mod samples;
mod sending;
mod storing;

use std::{fmt, hint::black_box};

/// A piece of work, to be done as often as one likes.
pub type Work = Box<dyn FnMut()>;

/// A piece of work with a name.
pub struct Workload {
    pub name: &'static str,
    /// Makes all that the work needs, so that it is neither timed nor counted.
    pub prepare: fn() -> Work,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them; a name here is one in `benches/instructions.toml`.
pub static WORKLOADS: [Workload; 16] = [
    Workload { name: "match 10,000: 3 by type", prepare: matching::few_by_type },
    Workload { name: "match 10,000: 40 by prefix", prepare: matching::some_by_prefix },
    Workload { name: "match 10,000: 5,000 by three patterns", prepare: matching::half_by_three_patterns },
    Workload { name: "match 10,000: all by *", prepare: matching::all },
    Workload { name: "change a webhook of 10,000", prepare: matching::change },
    Workload { name: "check 1 KiB of JSON", prepare: storing::check_json },
    Workload { name: "read an event of 1 KiB", prepare: storing::read_event },
    Workload { name: "read a stream id", prepare: storing::read_stream_id },
    Workload { name: "write a delivery's id", prepare: storing::write_delivery_id },
    Workload { name: "read a delivery's id", prepare: storing::read_delivery_id },
    Workload { name: "write a body of 1 KiB", prepare: sending::write_body },
    Workload { name: "sign 1 KiB", prepare: sending::sign },
    Workload { name: "make a request of 1 KiB", prepare: sending::make_request },
    Workload { name: "decide four outcomes", prepare: deciding::decide },
    Workload { name: "write an attempt", prepare: storing::write_attempt },
    Workload { name: "read an attempt", prepare: storing::read_attempt },
];

/// What is done each time; the compiler must not know that nobody wants the result.
fn work<T>(mut once: impl FnMut() -> T + 'static) -> Work {
    Box::new(move || drop(black_box(once())))
}
