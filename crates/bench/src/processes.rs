//! What processes use: CPU and memory, as the kernel accounts for them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processes, each with all that descend from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes(Vec<u32>);

/// Nanoseconds of CPU by thread.
#[derive(Debug)]
pub(crate) struct Threads(HashMap<u32, u64>);

/// What stands in `/proc/PID/stat`, as far as it is of interest.
struct Stat {
    parent: u32,
    /// Of itself, and of children that have ended and were waited for.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

impl Processes {
    pub(crate) fn new(pids: &[u32]) -> Self {
        Self(pids.to_vec())
    }

    fn family(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let parents: Vec<(u32, u32)> = pids
            .filter_map(|pid| Some((pid, stat(pid)?.parent)))
            .collect();
        let mut family: HashSet<u32> = self.0.iter().copied().collect();
        loop {
            let before = family.len();
            for (pid, parent) in &parents {
                if family.contains(parent) {
                    family.insert(*pid);
                }
            }
            if family.len() == before {
                return family.into_iter().collect();
            }
        }
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self
            .family()
            .iter()
            .filter_map(|pid| stat(*pid))
            .map(|stat| stat.ticks)
            .sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// What each thread has used so far, to the nanosecond: `cpu` counts in hundredths of a second, which
    /// is too coarse to tell a hundredth of a turn.
    pub(crate) fn threads(&self) -> Threads {
        let of = |pid: u32| {
            fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
        };
        let tasks = self.family().into_iter().flat_map(of).flatten();
        let used = tasks.filter_map(|task| {
            let thread = task.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((thread, text.split(' ').next()?.parse().ok()?))
        });
        Threads(used.collect())
    }

    /// User and system time since then. What a thread used that ended meanwhile is not in it: threads
    /// end here because they had nothing to do.
    pub(crate) fn used_since(&self, before: &Threads) -> Duration {
        let used = self.threads().0.into_iter().map(|(thread, now)| {
            let then = before.0.get(&thread).copied().unwrap_or(0);
            now.saturating_sub(then)
        });
        Duration::from_nanos(used.sum())
    }

    /// Anonymous memory now, in bytes.
    pub(crate) fn anonymous(&self) -> u64 {
        self.family().iter().map(|pid| anonymous(*pid)).sum()
    }

    /// Looks at the memory until it is asked for the highest.
    pub(crate) fn watch(&self) -> Watch {
        let (processes, highest) = (self.family(), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&highest);
        let task = tokio::spawn(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let now = processes.iter().map(|pid| anonymous(*pid)).sum();
                seen.fetch_max(now, Ordering::Relaxed);
            }
        });
        Watch { highest, task }
    }
}

fn anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// The highest anonymous memory since it began.
#[derive(Debug)]
pub(crate) struct Watch {
    highest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn highest(self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
