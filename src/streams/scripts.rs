//! The state changes in `streams/*.lua`, each one call: the functions of a library that is loaded into each server.

use std::sync::LazyLock;

use redis::{Arg, Cmd};

// What scripts share, each part below those that it uses.
const SHARED: &str = concat!(
    include_str!("../../streams/common.lua"),
    "\n",
    include_str!("../../streams/places.lua"),
    "\n",
    include_str!("../../streams/log.lua"),
    "\n",
    include_str!("../../streams/attempts.lua"),
    "\n",
    include_str!("../../streams/references.lua"),
    "\n",
    include_str!("../../streams/dead_letters.lua"),
    "\n",
    include_str!("../../streams/leasing.lua"),
    "\n",
    include_str!("../../streams/again.lua"),
    "\n",
    include_str!("../../streams/health.lua"),
    "\n",
);

/// What the names of all libraries of ours begin with.
pub const LIBRARIES: &str = "posthaste_";

/// One script.
pub struct Script {
    pub name: &'static str,
    /// Its first line says what a server may do with it.
    own: &'static str,
}

impl Script {
    /// Starts a call with its one key, which says which server it runs on; `ARGV[1]` and more are to follow.
    pub fn on(&self, key: &str) -> Cmd {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("{}_{}", LIBRARY.name, self.name)).arg(1).arg(key);
        command
    }

    /// The same as a `call` that [`on`](Self::on) started, for a server that does not have the library.
    pub fn evaluate(&self, call: &Cmd) -> Cmd {
        let (head, body) = self.parts();
        let mut command = redis::cmd("EVAL");
        command.arg(format!("{head}\nlocal keys, arguments = KEYS, ARGV\n{SHARED}begin(keys, arguments)\n{body}"));
        for argument in call.args_iter().skip(2) {
            if let Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        command
    }

    /// What its first line says, and all below.
    fn parts(&self) -> (&'static str, &'static str) {
        self.own.split_once('\n').unwrap_or((self.own, ""))
    }
}

const REGISTER: &str = "
local function register(script, flags, body)
  local function run(keys, arguments) begin(keys, arguments) return body() end
  redis.register_function{ function_name = LIBRARY .. '_' .. script, flags = flags, callback = run }
end
";

/// All scripts in one text, named by its digest: servers keep those of several versions beside each other.
pub struct Library {
    pub name: String,
    pub text: String,
}

pub static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let mut functions = format!("{SHARED}{REGISTER}");
    for script in ALL {
        let (head, body) = script.parts();
        let flags = if head.ends_with("flags=allow-oom") { "'allow-oom'" } else { "" };
        functions += &format!("register('{}', {{ {flags} }}, function()\n{body}end)\n", script.name);
    }
    let digest = redis::Script::new(&functions).get_hash()[..16].to_owned();
    let name = format!("{LIBRARIES}{digest}");
    Library { text: format!("#!lua name={name}\nlocal LIBRARY = '{name}'\n{functions}"), name }
});

macro_rules! scripts {
    ($($constant:ident = $file:literal;)*) => {
        $(pub static $constant: Script = Script { name: $file, own: include_str!(concat!("../../streams/", $file, ".lua")) };)*

        static ALL: &[&Script] = &[$(&$constant),*];
    };
}

scripts! {
    PUBLISH = "publish";
    EXPAND = "expand";
    LEASE = "lease";
    RENEW = "renew";
    SETTLE = "settle";
    SUBSCRIBE = "subscribe";
    SET_STATUS = "set_status";
    UNSUBSCRIBE = "unsubscribe";
    PURGE = "purge";
    DROP = "drop";
    REDRIVE = "redrive";
    DISCARD = "discard";
    REPLAY = "replay";
    TRIM = "trim";
    AUDIT = "audit";
    RECOUNT = "recount";
    BURY = "bury";
    LEAD = "lead";
    CHECK_IN = "check_in";
    SET_META = "set_meta";
    RESEND = "resend";
    SET_TENANT = "set_tenant";
    LIMIT_TENANT = "limit_tenant";
    LOG_TEST = "log_test";
    ADD_TYPE = "add_type";
    SWAP_ANSWER = "swap_answer";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_says_first_whether_it_runs_when_memory_is_short() {
        for script in ALL {
            let adds =
                ["publish", "expand", "subscribe", "redrive", "replay", "resend", "add_type"].contains(&script.name);
            let (head, _) = script.parts();
            assert_eq!(head, if adds { "#!lua" } else { "#!lua flags=allow-oom" }, "{}", script.name);
        }
    }

    #[test]
    fn each_script_stays_short() {
        for script in ALL {
            let lines = script.own.lines().count();
            assert!(lines <= 120, "{} has {lines} lines", script.name);
        }
    }
}
