//! The state changes in `streams/*.lua`, each one call.

use std::sync::LazyLock;

/// One script: its text with what all share, and its digest.
pub struct Script {
    pub name: &'static str,
    pub text: String,
    pub sha1: String,
}

impl Script {
    /// Starts a call with its one key, which says which server it runs on; `ARGV[1]` and more are to follow.
    pub fn on(&self, key: &str) -> redis::Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha1).arg(1).arg(key);
        command
    }
}

const COMMON: &str = concat!(include_str!("../../streams/common.lua"), "\n", include_str!("../../streams/places.lua"));
// What several scripts share, and the part of settling that is about an endpoint's health.
const LOG: &str = include_str!("../../streams/log.lua");
const ATTEMPTS: &str = include_str!("../../streams/attempts.lua");
const REFERENCES: &str = include_str!("../../streams/references.lua");
const DEAD_LETTERS: &str = include_str!("../../streams/dead_letters.lua");
const AGAIN: &str = include_str!("../../streams/again.lua");
const HEALTH: &str = include_str!("../../streams/health.lua");

macro_rules! scripts {
    ($($constant:ident = $file:literal $(with $($part:ident),+)?;)*) => {
        $(pub static $constant: LazyLock<Script> = LazyLock::new(|| {
            compose($file, include_str!(concat!("../../streams/", $file, ".lua")), &[COMMON $($(, $part)+)?])
        });)*

        /// Every script.
        pub fn all() -> Vec<&'static Script> {
            vec![$(&$constant),*]
        }
    };
}

scripts! {
    PUBLISH = "publish";
    EXPAND = "expand" with LOG, REFERENCES, DEAD_LETTERS;
    LEASE = "lease" with REFERENCES, DEAD_LETTERS;
    RENEW = "renew";
    SETTLE = "settle" with ATTEMPTS, REFERENCES, DEAD_LETTERS, HEALTH;
    SUBSCRIBE = "subscribe";
    SET_STATUS = "set_status";
    UNSUBSCRIBE = "unsubscribe";
    PURGE = "purge" with REFERENCES;
    DROP = "drop" with REFERENCES, DEAD_LETTERS;
    REDRIVE = "redrive";
    DISCARD = "discard" with REFERENCES;
    REPLAY = "replay" with LOG, REFERENCES, AGAIN;
    TRIM = "trim" with LOG;
    AUDIT = "audit";
    RECOUNT = "recount" with REFERENCES;
    BURY = "bury" with LOG;
    LEAD = "lead";
    CHECK_IN = "check_in";
    SET_META = "set_meta";
    RESEND = "resend" with REFERENCES, AGAIN;
    SET_TENANT = "set_tenant";
    LIMIT_TENANT = "limit_tenant";
    LOG_TEST = "log_test" with ATTEMPTS;
    ADD_TYPE = "add_type";
    SWAP_ANSWER = "swap_answer";
}

/// The first line says what the server may do with the script, so it stays the first; the shared parts come below it.
fn compose(name: &'static str, own: &str, parts: &[&str]) -> Script {
    let (head, body) = own.split_once('\n').unwrap_or((own, ""));
    let text = format!("{head}\n{}\n{body}", parts.join("\n"));
    let sha1 = redis::Script::new(&text).get_hash().to_owned();
    Script { name, text, sha1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_says_first_whether_it_runs_when_memory_is_short() {
        for script in all() {
            let head = script.text.lines().next();
            let adds =
                ["publish", "expand", "subscribe", "redrive", "replay", "resend", "add_type"].contains(&script.name);
            assert_eq!(head, Some(if adds { "#!lua" } else { "#!lua flags=allow-oom" }), "{}", script.name);
        }
    }

    #[test]
    fn each_script_stays_short() {
        for script in all() {
            let shared = [COMMON, LOG, ATTEMPTS, REFERENCES, DEAD_LETTERS, AGAIN, HEALTH]
                .into_iter()
                .filter(|part| script.text.contains(part));
            let own = script.text.lines().count() - shared.map(|part| part.lines().count()).sum::<usize>();
            assert!(own <= 120, "{} has {own} lines", script.name);
        }
    }
}
