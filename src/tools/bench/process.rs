//! The CPU time of processes, from `/proc`.

use std::fs;

use anyhow::Context;

/// Ticks of `/proc/<pid>/stat` a second: 100 on every Linux, whatever its kernel's own (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;
/// Where the fields `utime` and `stime` stand behind the process' name (proc_pid_stat(5)).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;

/// Seconds of CPU that a process has used, user and system, all its threads.
///
/// # Errors
/// The process is gone, or the system has no `/proc`.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the CPU time of a process cannot be read")?;
    ticks(&stat).map(|ticks| ticks as f64 / TICKS_A_SECOND).context("/proc has another form than expected")
}

fn ticks(stat: &str) -> Option<u64> {
    // The name may hold spaces and parentheses.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(field(USER_TIME)? + field(SYSTEM_TIME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_whatever_the_name() {
        let check = |stat: &str, expected| assert_eq!(ticks(stat), expected, "{stat}");
        check("7 (redis-server) S 1 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 5 0 1 2", Some(150));
        check("7 (a) b ) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20", Some(3));
        check("7 (cut) S 1", None);
        check("", None);
    }
}
