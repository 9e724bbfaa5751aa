//! Why a run ended, or never began: a closed list. The text beside a reason is for people, the reason is for programs.

use serde::{Deserialize, Serialize};

/// Machine-readable cause of a run's or an attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The process ended by itself; the exit code tells success.
    Exited,
    /// A signal ended the process that nobody of ours sent.
    Signaled,
    /// A person or a program cancelled it.
    Cancelled,
    /// It ran longer than its timeout.
    TimeLimit,
    /// The user to run as does not exist on the host.
    UnknownUser,
    /// The working directory does not exist or cannot be entered.
    BadWorkingDirectory,
    /// The program or interpreter is not on the host.
    ProgramNotFound,
    /// The host could not start the program for another reason (the detail has the system's error).
    SpawnFailed,
    /// The host's own policy does not allow it.
    PolicyRefused,
    /// The order's signature, audience, window or fence did not hold.
    OrderRefused,
    /// The agent had no free slot.
    AgentBusy,
    /// The agent ended between its yes and the run's first step: nothing was started, and nothing of it will be.
    NotStarted,
    /// It wrote more than its output limit, and was to end there.
    OutputLimit,
    /// It took more memory than its limit, and the kernel ended it for that.
    MemoryLimit,
    /// It wanted more processes than its limit, and failed.
    PidsLimit,
    /// The host cannot give what its sandbox promises; the detail names what is missing.
    SandboxUnavailable,
    /// The agent's disk is full.
    NoSpace,
    /// No host took it before its time to start was over.
    StartExpired,
    /// The agent was away for longer than `lost_after`.
    AgentLost,
    /// The agent's journal has no memory of it.
    JournalLost,
    /// The process that owned the attempt was killed before it could record the exit.
    ShimLost,
    /// The host was restarted while it ran.
    HostRebooted,
    /// The host was shutting down and ended it.
    HostStopping,
    /// It was to end, and not all of its processes could be killed.
    Unkillable,
    /// The agent was revoked.
    AgentRevoked,
    /// The signed manifest of its execution does not cover it.
    ManifestMismatch,
    /// A step before it failed on its host.
    HostStopped,
    /// The step's condition does not hold on its host.
    ConditionFalse,
    /// What the step says cannot be filled in, or its condition cannot be told.
    BadTemplate,
    /// Nothing has to be undone.
    NothingToUndo,
    /// What it needs went well on no host.
    NoHostLeft,
    /// The rollout was stopped before its host's turn.
    RolloutStopped,
    /// The controller did it.
    Done,
    /// As many people as it asks for have approved it.
    Approved,
    /// Somebody who could have approved it has rejected it.
    Rejected,
    /// Its host was away when its turn came.
    HostOffline,
    /// Another execution held what only one can hold.
    LockHeld,
    /// It did not tell the outputs that it promised.
    BadOutputs,
    /// Nobody has decided in time.
    ApprovalExpired,
    /// Somebody let it go on without the approvals that it asks for.
    BrokenGlass,
    /// The web server answered something else than was expected.
    UnexpectedAnswer,
    /// No answer came: the server could not be reached, or may not be.
    NoAnswer,
    /// The controller was gone before it could write what the server answered.
    AnswerLost,
    /// The job that it started did not end well.
    JobFailed,
}

impl Reason {
    /// The name that the API, the database and the wire use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::Cancelled => "cancelled",
            Self::TimeLimit => "time_limit",
            Self::UnknownUser => "unknown_user",
            Self::BadWorkingDirectory => "bad_working_directory",
            Self::ProgramNotFound => "program_not_found",
            Self::SpawnFailed => "spawn_failed",
            Self::PolicyRefused => "policy_refused",
            Self::OrderRefused => "order_refused",
            Self::AgentBusy => "agent_busy",
            Self::NotStarted => "not_started",
            Self::OutputLimit => "output_limit",
            Self::MemoryLimit => "memory_limit",
            Self::PidsLimit => "pids_limit",
            Self::SandboxUnavailable => "sandbox_unavailable",
            Self::NoSpace => "no_space",
            Self::StartExpired => "start_expired",
            Self::AgentLost => "agent_lost",
            Self::JournalLost => "journal_lost",
            Self::ShimLost => "shim_lost",
            Self::HostRebooted => "host_rebooted",
            Self::HostStopping => "host_stopping",
            Self::Unkillable => "unkillable",
            Self::AgentRevoked => "agent_revoked",
            Self::ManifestMismatch => "manifest_mismatch",
            Self::HostStopped => "host_stopped",
            Self::ConditionFalse => "condition_false",
            Self::BadTemplate => "bad_template",
            Self::NothingToUndo => "nothing_to_undo",
            Self::NoHostLeft => "no_host_left",
            Self::RolloutStopped => "rollout_stopped",
            Self::Done => "done",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::HostOffline => "host_offline",
            Self::LockHeld => "lock_held",
            Self::BadOutputs => "bad_outputs",
            Self::ApprovalExpired => "approval_expired",
            Self::BrokenGlass => "broken_glass",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::NoAnswer => "no_answer",
            Self::AnswerLost => "answer_lost",
            Self::JobFailed => "job_failed",
        }
    }

    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 44] = [
        Self::Exited,
        Self::Signaled,
        Self::Cancelled,
        Self::TimeLimit,
        Self::UnknownUser,
        Self::BadWorkingDirectory,
        Self::ProgramNotFound,
        Self::SpawnFailed,
        Self::PolicyRefused,
        Self::OrderRefused,
        Self::AgentBusy,
        Self::NotStarted,
        Self::OutputLimit,
        Self::MemoryLimit,
        Self::PidsLimit,
        Self::SandboxUnavailable,
        Self::NoSpace,
        Self::StartExpired,
        Self::AgentLost,
        Self::JournalLost,
        Self::ShimLost,
        Self::HostRebooted,
        Self::HostStopping,
        Self::Unkillable,
        Self::AgentRevoked,
        Self::ManifestMismatch,
        Self::HostStopped,
        Self::ConditionFalse,
        Self::BadTemplate,
        Self::NothingToUndo,
        Self::NoHostLeft,
        Self::RolloutStopped,
        Self::Done,
        Self::Approved,
        Self::Rejected,
        Self::HostOffline,
        Self::LockHeld,
        Self::BadOutputs,
        Self::ApprovalExpired,
        Self::BrokenGlass,
        Self::UnexpectedAnswer,
        Self::NoAnswer,
        Self::AnswerLost,
        Self::JobFailed,
    ];

    /// Reads what [`Reason::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}
