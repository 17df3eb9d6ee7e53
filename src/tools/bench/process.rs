//! Processes: this program as another one, and what each uses, from `/proc`.

use std::{fs, process::Command};

use anyhow::Context;

/// Ticks of `/proc/<pid>/stat` a second: 100 on every Linux, whatever its kernel's own (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;
/// Where `utime`, `stime`, `cutime` and `cstime` stand behind the process' name (proc_pid_stat(5)).
const TIMES: std::ops::Range<usize> = 11..15;
/// What `/proc/<pid>/clear_refs` takes to forget the peak of resident memory (proc_pid_clear_refs(5)).
const FORGET_PEAK: &str = "5";

/// This program, without the settings of the environment it was started in.
///
/// # Errors
/// It does not know where it is.
pub fn own_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program does not know where it is")?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POSTHASTE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Seconds of CPU that a process has used, user and system, all its threads, and children that have ended: those in which
/// Redis rewrites its file.
///
/// # Errors
/// The process is gone, or the system has no `/proc`.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the CPU time of a process cannot be read")?;
    ticks(&stat).map(|ticks| ticks as f64 / TICKS_A_SECOND).context("/proc has another form than expected")
}

/// The most memory a process has had resident since it started or its peak was forgotten: bytes.
///
/// # Errors
/// The process is gone, or the system has no `/proc`.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the memory of a process cannot be read")?;
    peak(&status).context("/proc has another form than expected")
}

/// Lets the peak of a process' memory begin anew.
///
/// # Errors
/// The process is gone or another user's, or the system has no `/proc`.
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), FORGET_PEAK).context("the peak of a process' memory cannot be reset")
}

fn peak(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kilobytes.trim().parse::<u64>().ok()? * 1024)
}

fn ticks(stat: &str) -> Option<u64> {
    // The name may hold spaces and parentheses.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    fields.get(TIMES)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_are_added_whatever_the_name() {
        let check = |stat: &str, expected| assert_eq!(ticks(stat), expected, "{stat}");
        check("7 (redis-server) S 1 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 5 0 1 2", Some(150));
        check("7 (a) b ) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 30 40 20", Some(73));
        check("7 (cut) S 1", None);
        check("", None);
    }
    #[test]
    fn the_peak_is_read_in_bytes() {
        let check = |status: &str, expected| assert_eq!(peak(status), expected, "{status}");
        check("Name:\ta\nVmPeak:\t  900 kB\nVmHWM:\t    12 kB\nVmRSS:\t    11 kB\n", Some(12 * 1024));
        check("Name:\ta\n", None);
        check("VmHWM:\t12 MB\n", None);
    }
}
