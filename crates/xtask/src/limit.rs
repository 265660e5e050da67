//! Commands that have a time limit, and the end of all that they started.
//!
//! A command runs in a process group of its own, which is killed when its time is over. What it put into
//! other groups is found by who its parent is and killed too, and no pid is touched that does not
//! descend from the command. For this to hold for orphans as well, a step calls [`under_watch`] first.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes are waited for in real time; no test of ours pauses this clock"
)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{
        Pid, Signal, getpgrp, getpid, kill_process, kill_process_group, set_child_subreaper,
    },
    stdio::dup2_stdin,
};

use crate::cmd::shown;

/// The lowest descriptor that is none of the standard ones.
const FIRST_AFTER_STANDARD: i32 = 3;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How a command with a limit ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// Its time was over.
    TooLate,
}

/// Runs a command to its end, or kills it with all that it started.
pub(crate) fn within(command: &mut Command, limit: Duration) -> Result<Ended> {
    let begun = Instant::now();
    let mut group = Group::start(command)?;
    loop {
        if let Some(status) = group.child.try_wait().context("waiting for a command")? {
            return Ok(Ended::With(status));
        }
        let Some(left) = limit.checked_sub(begun.elapsed()) else {
            return Ok(Ended::TooLate);
        };
        thread::sleep(left.min(LOOK_INTERVAL));
    }
}

/// What a step does first: whoever started it holds the other end of its standard input, and when that
/// is gone (Ctrl-C, a kill), the group of this step goes too. Orphans below it become its children.
pub(crate) fn under_watch() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("becoming a subreaper")?;
    let watched = fcntl_dupfd_cloexec(io::stdin(), FIRST_AFTER_STANDARD);
    let mut watched = File::from(watched.context("keeping the standard input")?);
    // What the step starts reads nothing, as if there were no terminal.
    let nothing = File::open("/dev/null").context("opening /dev/null")?;
    dup2_stdin(&nothing).context("replacing the standard input")?;
    thread::spawn(move || {
        // Nobody writes: it returns when the other end is closed.
        watched.read_to_end(&mut Vec::new()).ok();
        kill_process_group(getpgrp(), Signal::KILL).ok();
    });
    Ok(())
}

/// A command at the head of a process group; all of it is killed on drop.
struct Group {
    child: Child,
}

impl Group {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", shown(command)))?;
        Ok(Self { child })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(head) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return;
        };
        // The head is still ours to wait for, so its pid, and the group's, is nobody else's.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Those in other groups first: they can be found while their parents live.
        for process in below(head.as_raw_pid(), &processes()) {
            if process.group != head.as_raw_pid()
                && let Some(pid) = Pid::from_raw(process.pid)
            {
                kill_process(pid, Signal::KILL).ok();
            }
        }
        kill_process_group(head, Signal::KILL).ok();
        self.child.wait().ok();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// All processes that there are now.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            parsed(pid, &fs::read_to_string(entry.path().join("stat")).ok()?)
        })
        .collect()
}

/// A line of `/proc/PID/stat`. The name is in parentheses, and may hold anything.
fn parsed(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(1);
    Some(Process {
        pid,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

/// Those that descend from a process.
fn below(head: i32, processes: &[Process]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(*process);
    }
    let (mut found, mut next) = (Vec::new(), vec![head]);
    while let Some(parent) = next.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            next.push(child.pid);
            found.push(child);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// The pid that a script wrote.
    fn written(file: &Path) -> i32 {
        loop {
            let text = fs::read_to_string(file).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n') {
                return pid.parse().unwrap();
            }
            thread::yield_now();
        }
    }

    /// Waits until a process is gone, or waits for whoever reaps it.
    fn gone(pid: i32) {
        while let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            if stat.contains(") Z ") {
                return;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn a_command_that_ends_in_time_keeps_its_status() {
        let ended = within(&mut shell("exit 3"), Duration::MAX).unwrap();
        let Ended::With(status) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_and_says_so() {
        let ended = within(&mut shell("sleep 600"), Duration::ZERO).unwrap();
        assert_eq!(ended, Ended::TooLate);
    }

    #[test]
    fn what_a_command_started_ends_with_it_in_whatever_group_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = shell(
            "sleep 600 & echo $! > same; setsid sh -c 'echo $$ > other; exec sleep 600' & wait",
        );
        let group = Group::start(command.current_dir(folder.path())).unwrap();
        let same = written(&folder.path().join("same"));
        let other = written(&folder.path().join("other"));
        let head = i32::try_from(group.child.id()).unwrap();
        let all = processes();
        let groups: Vec<_> = below(head, &all)
            .iter()
            .map(|process| process.group == head)
            .collect();
        assert!(groups.contains(&true) && groups.contains(&false), "{all:?}");
        drop(group);
        gone(same);
        gone(other);
    }

    #[test]
    fn only_descendants_are_found_whatever_a_program_is_called() {
        let line = |pid, parent| {
            let stat = format!("{pid} (a) b) S {parent} {pid} 7 0");
            parsed(pid, &stat).unwrap()
        };
        let all = [line(10, 1), line(11, 10), line(12, 11), line(13, 1)];
        assert_eq!(below(10, &all), [all[1], all[2]]);
        assert!(below(13, &all).is_empty());
    }
}
