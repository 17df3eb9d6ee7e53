//! `posthaste demo`, as its users see it.

use std::{fs, process::Stdio};

use posthaste::domain::id::{DeliveryId, EventId, SubscriptionId};
use tokio::{process::Command, time::timeout};

use crate::support::engine::PATIENCE;

/// The words of the line that begins with `start`, spaces before it left out.
fn words<'s>(story: &'s str, start: &str) -> Vec<&'s str> {
    let found = story.lines().map(str::trim_start).find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{story}")).split_whitespace().collect()
}

#[tokio::test]
async fn the_demo_tells_the_whole_story_and_leaves_nothing_behind() {
    let folder = tempfile::Builder::new().prefix("ph").tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.arg("demo").current_dir(folder.path()).env("TMPDIR", folder.path());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let (story, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && stderr.is_empty(), "{}\n{story}{stderr}", output.status);

    let titles: Vec<&str> = story
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()) && line.contains(". "))
        .collect();
    let expected = [
        "1. Two webhooks",
        "2. Three events are published",
        "3. The messages arrive, signed",
        "4. The invoice fails, and is tried again",
        "5. Its retries are used up: it becomes a dead letter",
        "6. The endpoint recovers, and the dead letter is replayed",
        "7. Any Redis client can publish",
    ];
    assert_eq!(titles[..expected.len()], expected, "{story}");

    let webhooks: Vec<_> =
        story.lines().filter_map(|line| line.trim_start().split_once("  ")?.0.parse::<SubscriptionId>().ok()).collect();
    assert_eq!(webhooks.len(), 2, "{story}");
    let letter: DeliveryId = words(&story, "dlv_")[0].parse().expect("a delivery's id");
    assert_eq!(letter.subscription, webhooks[1]);
    let arrivals: Vec<_> = story.lines().filter(|line| line.contains("signatures hold")).collect();
    assert_eq!(arrivals.len(), 4, "{story}");
    for arrival in &arrivals {
        arrival.split_whitespace().next().unwrap().parse::<EventId>().expect("an event's id");
        assert!(arrival.ends_with("Standard Webhooks, X-Hub-Signature-256, X-Hub-Signature"), "{arrival}");
    }
    assert!(arrivals[2].contains("arrives as attempt 5"), "{}", arrivals[2]);
    for (attempt, delay_s) in [(2, 0.495), (3, 0.995), (4, 1.995)] {
        let words = words(&story, &format!("attempt {attempt}: 503, "));
        assert!(words[3].parse::<f64>().unwrap() >= delay_s, "{words:?}");
    }
    assert!(story.contains("reason: exhausted; 4 attempts, the last answered 503"), "{story}");
    assert!(story.trim_end().ends_with("Nothing was lost."), "{story}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
