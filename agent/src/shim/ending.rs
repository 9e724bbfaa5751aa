//! The end of a run in words: why it ended, and what it took.

use model::Reason;
use nix::sys::{
    resource::{UsageWho, getrusage},
    signal::Signal,
};

use super::{output::Output, outputs::Outputs, prepare::Failure, record, run::Bounds};
use crate::{clock, sandbox::cgroup::Usage, sys::Exit};

/// All that is known at the end.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) started_at: i64,
    /// Why the program never ran.
    pub(super) failure: Option<Failure>,
    /// Why we ended it, if we did.
    pub(super) why: Option<Reason>,
    /// It did not end when it was asked to.
    pub(super) killed: bool,
    pub(super) exit: Option<Exit>,
    pub(super) unkillable: &'a [i32],
    /// Processes that were left when the main one had ended.
    pub(super) left_behind: usize,
    /// What the control group counted.
    pub(super) usage: Usage,
    pub(super) bounds: Bounds,
}

impl Ended<'_> {
    /// The record without the ids; `told` is what the run was to tell, if anything.
    pub(super) fn record(self, output: Output, told: Option<&Outputs>) -> proto::ExitRecord {
        let mut record = proto::ExitRecord {
            started_at: self.started_at,
            ended_at: clock::now_micros(),
            ..proto::ExitRecord::default()
        };
        let failed = self.exit != Some(Exit::Code(0));
        let (reason, detail) = match (self.failure, self.why) {
            (Some(failure), _) => {
                record.started_at = 0;
                (failure.reason, failure.detail)
            }
            (None, why) => {
                set_exit(&mut record, self.exit);
                match why {
                    _ if !self.unkillable.is_empty() => (Reason::Unkillable, not_ended(self.unkillable)),
                    Some(why) => (why, ended_by_us(why, self.killed, self.bounds)),
                    None if failed && self.usage.oom_kills > 0 => {
                        (Reason::MemoryLimit, out_of_memory(&self.usage))
                    }
                    None if failed && self.usage.pids_refused > 0 => {
                        (Reason::PidsLimit, out_of_pids(&self.usage))
                    }
                    None => ended_by_itself(self.exit, self.left_behind),
                }
            }
        };
        let told = told.filter(|_| reason == Reason::Exited && !failed).map(Outputs::read);
        let (reason, detail) = match told {
            Some(Err(why)) => (Reason::BadOutputs, why),
            Some(Ok(json)) => {
                record.outputs = json;
                (reason, detail)
            }
            None => (reason, detail),
        };
        reason.as_str().clone_into(&mut record.reason);
        record.detail = record::detail(detail);
        if record.started_at != 0 {
            account(&mut record, &self.usage);
        }
        let (stdout, stderr) = output.finish();
        record.stdout = Some(stdout);
        record.stderr = Some(stderr);
        record
    }
}

/// What it took: of the two that count, the kernel for children that were waited for and the control group, the one that
/// has more.
fn account(record: &mut proto::ExitRecord, usage: &Usage) {
    if let Ok(waited) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let micros = |time: nix::sys::time::TimeVal| {
            u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0)
        };
        record.cpu_user_us = micros(waited.user_time());
        record.cpu_system_us = micros(waited.system_time());
        record.peak_memory_bytes = u64::try_from(waited.max_rss()).unwrap_or(0) * 1024;
    }
    record.cpu_user_us = record.cpu_user_us.max(usage.cpu_user_us.unwrap_or(0));
    record.cpu_system_us = record.cpu_system_us.max(usage.cpu_system_us.unwrap_or(0));
    record.peak_memory_bytes = record.peak_memory_bytes.max(usage.peak_memory_bytes.unwrap_or(0));
    record.peak_pids = usage.peak_pids.unwrap_or(0);
    record.io_read_bytes = usage.io_read_bytes.unwrap_or(0);
    record.io_write_bytes = usage.io_write_bytes.unwrap_or(0);
    record.out_of_memory = usage.oom_kills > 0;
}

fn out_of_memory(usage: &Usage) -> String {
    let killed =
        if usage.oom_kills == 1 { "a process".to_owned() } else { format!("{} processes", usage.oom_kills) };
    format!("the kernel killed {killed} of it at its memory limit (memory_bytes)")
}

fn out_of_pids(usage: &Usage) -> String {
    format!("it was refused new processes {} times at its limit (pids), and failed", usage.pids_refused)
}

fn set_exit(record: &mut proto::ExitRecord, exit: Option<Exit>) {
    match exit {
        Some(Exit::Code(code)) => record.exit_code = Some(code),
        Some(Exit::Signal { number, .. }) => record.signal = Some(number),
        None => {}
    }
}

fn not_ended(pids: &[i32]) -> String {
    let noun = if pids.len() == 1 { "process" } else { "processes" };
    let named: Vec<String> = pids.iter().map(ToString::to_string).collect();
    format!("{} {noun} could not be ended: pids {}", pids.len(), named.join(", "))
}

fn ended_by_us(why: Reason, killed: bool, bounds: Bounds) -> String {
    let mut detail = match why {
        Reason::TimeLimit => format!("it ran longer than {} s", bounds.timeout.as_secs_f64()),
        Reason::OutputLimit => {
            format!("it wrote more than {} bytes of output, its limit", bounds.halt_at.unwrap_or_default())
        }
        Reason::HostStopping => {
            "the process that owns the run was asked to end (SIGTERM), as when the host shuts down".to_owned()
        }
        _ => String::new(),
    };
    if killed {
        let separator = if detail.is_empty() { "" } else { "; " };
        let grace = bounds.kill_grace.as_secs_f64();
        detail = format!("{detail}{separator}it did not end within {grace} s of being asked and was killed");
    }
    detail
}

fn ended_by_itself(exit: Option<Exit>, left_behind: usize) -> (Reason, String) {
    let (reason, mut detail) = match exit {
        Some(Exit::Signal { number, core }) => {
            let name =
                Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            (Reason::Signaled, format!("ended by {name}{}", if core { ", core dumped" } else { "" }))
        }
        Some(Exit::Code(_)) | None => (Reason::Exited, String::new()),
    };
    if left_behind > 0 {
        let separator = if detail.is_empty() { "" } else { "; " };
        let noun = if left_behind == 1 { "process" } else { "processes" };
        detail = format!("{detail}{separator}{left_behind} {noun} that it left behind were ended");
    }
    (reason, detail)
}
