//! Random sequences of calls, crashes and lost answers on a real Redis: after every step every invariant of the queue
//! holds and nothing has changed but what that step changes; at the end each delivery is in the books exactly once.
//!
//! `POSTHASTE_CASES` raises the number of sequences.

mod action;
mod own;
mod prediction;
mod step;
mod world;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use self::{
    step::{Step, step},
    world::World,
};
use crate::support::redis::TestRedis;

const CASES: u32 = 24;
const STEPS: std::ops::Range<usize> = 20..90;
/// A run of a shorter sequence costs up to a second.
const SHRINK_RUNS: u32 = 400;

/// Runs `check` on random inputs, each with the same Redis; a failing one is made shorter, then shown.
fn check_all<T: std::fmt::Debug>(inputs: impl Strategy<Value = T>, check: impl AsyncFn(&mut TestRedis, String, T)) {
    let cases = std::env::var("POSTHASTE_CASES").ok().map_or(CASES, |cases| cases.parse().expect("a number of cases"));
    let config = Config { cases, max_shrink_iters: SHRINK_RUNS, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let redis = std::cell::RefCell::new(runtime.block_on(TestRedis::start()));
    let count = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        count.set(count.get() + 1);
        // A failed run may have left the server killed.
        let mut redis = redis.borrow_mut();
        runtime.block_on(redis.revive());
        runtime.block_on(check(&mut redis, format!("c{}", count.get()), input));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure:?}");
    }
}

#[test]
fn every_sequence_of_calls_and_crashes_keeps_the_invariants() {
    check_all(prop::collection::vec(step(), STEPS), async |redis, prefix, steps: Vec<Step>| {
        let mut world = World::new(redis, prefix).await;
        for step in &steps {
            world.step(step).await;
        }
        world.drain().await;
        world.end().await;
    });
}

#[test]
fn a_torn_tail_takes_whole_calls_and_leaves_the_rest_whole() {
    let inputs = (prop::collection::vec(step(), STEPS), 1u64..20_000);
    check_all(inputs, async |redis, prefix, (steps, bytes): (Vec<Step>, u64)| {
        let mut world = World::new(redis, prefix).await;
        for step in &steps {
            world.step(step).await;
        }
        world.tear_tail(bytes).await;
        world.drain().await;
        world.end().await;
    });
}
