//! Time that passes without anybody waiting for it.

use redis::aio::MultiplexedConnection;

use super::state::State;

/// Moves every time that `state` holds of a shard back, at once: as if so many milliseconds had passed.
pub async fn elapse(connection: &mut MultiplexedConnection, shard: &str, state: &State, ms: u64) {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    let key = |name: &str| format!("{shard}:{name}");
    let back = -(ms as i64);
    for (id, sub) in &state.subscriptions {
        for (name, times) in [("inf", &sub.leases), ("rty", &sub.retries)] {
            for entry in times.keys() {
                pipeline.cmd("ZINCRBY").arg(key(&format!("{name}:{id}"))).arg(back).arg(entry.to_string());
            }
        }
        for name in ["tat", "hold", "ra", "cfat", "cfl", "down"].iter().filter(|name| sub.number(name) > 0) {
            pipeline.cmd("HINCRBY").arg(key(&format!("rt:{id}"))).arg(name).arg(back);
        }
    }
    for id in state.zset("due").keys() {
        pipeline.cmd("ZINCRBY").arg(key("due")).arg(back).arg(id);
    }
    if !pipeline.is_empty() {
        let () = pipeline.query_async(connection).await.unwrap();
    }
}
