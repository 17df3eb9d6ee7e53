//! On a Redis Cluster: all that is done on a single server, and what becomes of it when a node goes.

use std::collections::BTreeSet;

use posthaste::{
    domain::id::{StreamId, SubscriptionId},
    publish::PublishError,
    streams::{Error, ShardId},
};
use serde_json::json;

use crate::support::{
    cluster::TestCluster,
    engine::{Engine, PATIENCE, new_event, wait_until},
    program::Program,
    receiver::{Receiver, Reply},
};

/// A tenant of each shard.
fn tenants(engine: &Engine) -> Vec<String> {
    let of = |shard: ShardId| {
        let mut names = (0..).map(|number| format!("t{number}"));
        names.find(|name| engine.streams.shard_of(name) == shard).expect("a tenant of every shard")
    };
    engine.streams.shards().map(of).collect()
}

/// A webhook of each tenant that wants everything.
async fn subscribe_all(engine: &Engine, receiver: &Receiver) -> Vec<(String, SubscriptionId)> {
    let mut webhooks = Vec::new();
    for tenant in tenants(engine) {
        let id = engine.subscribe(&tenant, &receiver.url(&format!("/{tenant}")), &["*"], |_| ()).await;
        webhooks.push((tenant, id));
    }
    webhooks
}

/// Waits until nothing is owed to anybody, and nothing is amiss.
async fn until_all_is_in_order(engine: &Engine, webhooks: &[(String, SubscriptionId)]) {
    for (_, id) in webhooks {
        engine.wait_until_drained(*id).await;
        assert_eq!(engine.streams.audit(*id).await.expect("an answer"), 0);
    }
}

async fn owner_of(cluster: &TestCluster, engine: &Engine, tenant: &str) -> usize {
    cluster.owner(&format!("posthaste:{{s{}}}:due", engine.streams.shard_of(tenant))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_delivers_for_the_tenants_of_all_nodes_and_moves_what_is_at_the_front_door() {
    let cluster = TestCluster::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::at(&cluster.url(), &[]).await;
    let webhooks = subscribe_all(&engine, &receiver).await;
    let mut nodes = BTreeSet::new();
    for (tenant, _) in &webhooks {
        nodes.insert(owner_of(&cluster, &engine, tenant).await);
        receiver.script(&format!("/{tenant}"), [Reply::status(500), Reply::status(200)]);
        engine.publish(tenant, "order.paid", "1").await;
    }
    assert_eq!(nodes.len(), 3, "each node has some of it");
    // Each once more after its first attempt.
    receiver.wait_for(|received| received.len() == 2 * webhooks.len(), PATIENCE).await;

    let door = cluster.owner("posthaste:in").await;
    for (tenant, _) in &webhooks {
        let words = ["XADD", "posthaste:in", "*", "tenant", tenant, "type", "order.sent", "data", "2"];
        cluster.ask::<String>(door, &words).await;
    }
    let words = ["XADD", "posthaste:in", "*", "tenant", "no tenant", "type", "a.b", "data", "1"];
    cluster.ask::<String>(door, &words).await;
    receiver.wait_for(|received| received.len() == 3 * webhooks.len(), PATIENCE).await;
    wait_until("the front door is empty", async || cluster.length("posthaste:in").await == 0).await;
    assert_ne!(door, cluster.owner("posthaste:deadin").await, "two slots of two nodes");
    let homeless = engine.streams.bad_entries(None, StreamId::MAX, StreamId::ZERO, 10).await.expect("entries");
    assert_eq!(homeless.len(), 1);

    until_all_is_in_order(&engine, &webhooks).await;
    let memory = engine.streams.memory(&[0, 1, 2, 3]).await.expect("figures");
    assert_eq!(memory.iter().map(|part| part.shards.len()).sum::<usize>(), 4);
    assert_eq!(memory.len(), 3);
    engine.stop_all().await;
    assert_eq!(receiver.count(), 3 * webhooks.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_works_on_a_cluster_as_on_one_server() {
    let cluster = TestCluster::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::at(&cluster.url(), &[]).await;
    let webhooks = subscribe_all(&engine, &receiver).await;
    let program = Program::at(cluster.url());

    let checked = program.run(&["check", "--json"]).await.json();
    assert_eq!(checked["redis"]["cluster_primaries"], json!(3));
    // What is so on all nodes is said once and of none, what is so on one of that one.
    cluster.ask::<()>(1, &["CONFIG", "SET", "appendfsync", "everysec"]).await;
    let findings = program.run(&["check", "--json"]).await.json()["findings"].to_string();
    assert_eq!(findings.matches("maxmemory is not set").count(), 1, "{findings}");
    assert!(findings.contains(&format!("{}: appendfsync is not always", cluster.address(1))), "{findings}");

    let mut tail = program.command(&["tail", "--all-tenants", "--json"]).spawn().unwrap();
    let mut said = tokio::io::BufReader::new(tail.stderr.take().unwrap());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut said, &mut line).await.unwrap();
    assert_eq!(line, "waiting for attempts\n");
    for (tenant, _) in &webhooks {
        program.run(&["publish", "order.paid", "--data", "1", "--tenant", tenant]).await.done();
    }
    let mut shown = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(tail.stdout.take().unwrap()));
    let mut seen = BTreeSet::new();
    while seen.len() < webhooks.len() {
        let line = tokio::time::timeout(PATIENCE, shown.next_line()).await.expect("a line in time").unwrap();
        let attempt: serde_json::Value = serde_json::from_str(&line.expect("a line")).unwrap();
        seen.insert(attempt["tenant"].to_string());
    }
    tail.kill().await.unwrap();

    // What is dead on any node is found, and put to its webhook again.
    receiver.otherwise(|_| Reply::status(410));
    for (tenant, _) in &webhooks {
        engine.publish(tenant, "order.sent", "2").await;
    }
    wait_until("all are given up", async || {
        program.run(&["status", "--json"]).await.json()["dead_letters"] == json!(webhooks.len())
    })
    .await;
    receiver.otherwise(|_| Reply::status(200));
    let before = receiver.count();
    for (tenant, id) in &webhooks {
        let id = id.to_string();
        program.run(&["webhook", "resume", &id, "--tenant", tenant]).await.done();
        program.run(&["deadletter", "replay", "--all", "--tenant", tenant]).await.done();
        program
            .run(&["replay", "--webhook", &id, "--from", "1h", "--type", "order.paid", "--tenant", tenant])
            .await
            .done();
    }
    receiver.wait_for(|received| received.len() == before + 2 * webhooks.len(), PATIENCE).await;
    let status = program.run(&["status", "--json"]).await.json();
    assert_eq!((&status["shards_without_leader"], &status["dead_letters"]), (&json!([]), &json!(0)));
    assert_eq!(status["redis"]["cluster_primaries"], json!(3));
    assert!(program.run(&["status"]).await.done().contains("a cluster of 3, the fullest "));
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_is_killed_and_comes_back_has_lost_nothing_and_holds_up_only_its_own() {
    let mut cluster = TestCluster::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::at(&cluster.url(), &[]).await;
    let mut webhooks = subscribe_all(&engine, &receiver).await;
    let (lost, id) = webhooks.pop().expect("a webhook");
    let killed = owner_of(&cluster, &engine, &lost).await;
    engine.streams.set_active(id, false).await.expect("an answer");
    for number in 0..20 {
        engine.publish(&lost, "order.paid", number.to_string()).await;
    }
    engine.wait_until_dispatched().await;
    cluster.kill(killed);
    for (tenant, _) in &webhooks {
        assert_ne!(owner_of(&cluster, &engine, tenant).await, killed);
        for number in 0..20 {
            engine.publish(tenant, "order.paid", number.to_string()).await;
        }
    }
    receiver.wait_for(|received| received.len() == 20 * webhooks.len(), PATIENCE).await;

    cluster.restart(killed).await;
    wait_until("the shard takes events again", async || {
        match engine.publisher.publish(new_event(&lost, "order.sent", "1")).await {
            Ok(_) => true,
            Err(PublishError::Redis(Error::Unavailable(_))) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    engine.streams.set_active(id, true).await.expect("an answer");
    receiver.wait_for(|received| received.len() == 20 * webhooks.len() + 21, PATIENCE).await;
    webhooks.push((lost, id));
    until_all_is_in_order(&engine, &webhooks).await;
    engine.stop_all().await;
    assert_eq!(receiver.count(), 20 * webhooks.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_is_found_by_all_that_run_and_all_that_start() {
    let cluster = TestCluster::with_replica().await;
    let receiver = Receiver::start().await;
    let engine = Engine::at(&cluster.url(), &[]).await;
    let webhooks = subscribe_all(&engine, &receiver).await;
    let mut nodes = BTreeSet::new();
    for (tenant, _) in &webhooks {
        nodes.insert(owner_of(&cluster, &engine, tenant).await);
        engine.publish(tenant, "order.paid", "1").await;
    }
    assert!(nodes.contains(&0), "the node that has a replica has some of it");
    receiver.wait_for(|received| received.len() == webhooks.len(), PATIENCE).await;
    cluster.fail_over().await;
    for (tenant, _) in &webhooks {
        engine.publish(tenant, "order.sent", "2").await;
    }
    receiver.wait_for(|received| received.len() == 2 * webhooks.len(), PATIENCE).await;
    // The node that it is told of is a replica by now.
    let other = Engine::idle_at(&cluster.url(), &[]).await;
    for (tenant, _) in &webhooks {
        other.publish(tenant, "order.done", "3").await;
    }
    receiver.wait_for(|received| received.len() == 3 * webhooks.len(), PATIENCE).await;
    until_all_is_in_order(&engine, &webhooks).await;
    engine.stop_all().await;
    assert_eq!(receiver.count(), 3 * webhooks.len());
}
