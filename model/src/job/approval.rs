//! Approvals: what people have to allow before a job goes on.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    Length, Plan, PlanStep, Work, condition,
    context::Context,
    parameters::{Parameters, validate_all},
};
use crate::{Invalid, Reason, access::validate_slug, api::approval::Decision, limits, run::RunOutcome};

/// Who has to allow it, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// How many people; 1 by default. Nobody counts twice, and who started the job does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Each of them has one of these roles or is in one of these groups; without both, `approval.decide` is enough. They need
    /// that too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What they are asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How long it waits for them; 24 hours by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Length>,
    /// What they have to say with it.
    #[serde(default, skip_serializing_if = "Parameters::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, crate::job::parameters::Parameter>)]
    pub input: Parameters,
}

impl Approval {
    /// How many people have to approve.
    pub fn count(&self) -> usize {
        usize::try_from(self.count.unwrap_or(1)).unwrap_or(usize::MAX)
    }

    /// How long it waits for them.
    pub fn expires(&self) -> SignedDuration {
        self.expires.unwrap_or(Length(limits::DEFAULT_APPROVAL_SECONDS)).duration()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let who: Vec<&str> = self.roles.iter().chain(&self.groups).map(String::as_str).collect();
        let who = if who.is_empty() { String::new() } else { format!(" of {}", who.join(", ")) };
        match self.count() {
            1 => format!("asks for an approval{who}"),
            count => format!("asks for {count} approvals{who}"),
        }
    }

    /// # Errors
    /// The first thing that is wrong, as a path below the step.
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if let Some(count) = self.count {
            crate::command::within("approval.count", count.into(), &limits::APPROVERS)?;
        }
        for (field, names) in [("roles", &self.roles), ("groups", &self.groups)] {
            if names.len() > limits::APPROVAL_NAMES {
                let field = format!("approval.{field}");
                return Err(Invalid::over(field, "APPROVAL_NAMES", limits::APPROVAL_NAMES, "names"));
            }
            for (index, name) in names.iter().enumerate() {
                validate_slug(&format!("approval.{field}[{index}]"), name)?;
            }
        }
        if self.message.len() > limits::DESCRIPTION_BYTES {
            let most = limits::DESCRIPTION_BYTES;
            return Err(Invalid::over("approval.message", "DESCRIPTION_BYTES", most, "bytes"));
        }
        if let Some(expires) = self.expires {
            crate::command::within("approval.expires", expires.seconds(), &limits::APPROVAL_SECONDS)?;
        }
        validate_all(&self.input)
            .map_err(|invalid| Invalid::new(format!("approval.input.{}", invalid.field), invalid.problem))
    }

    /// What the decisions come to, those of people who may: none while it still waits. One rejection ends it.
    pub fn verdict(&self, decisions: &[Decision]) -> Option<(RunOutcome, Reason)> {
        let how_many = |decision| decisions.iter().filter(|made| made.decision == decision).count();
        if how_many(Choice::BreakGlass) > 0 {
            Some((RunOutcome::Succeeded, Reason::BrokenGlass))
        } else if how_many(Choice::Reject) > 0 {
            Some((RunOutcome::Failed, Reason::Rejected))
        } else if how_many(Choice::Approve) >= self.count() {
            Some((RunOutcome::Succeeded, Reason::Approved))
        } else {
            None
        }
    }

    /// Until when it waits that has waited since `asked_at`.
    pub fn expires_at(&self, asked_at: Timestamp) -> Timestamp {
        asked_at.checked_add(self.expires()).unwrap_or(Timestamp::MAX)
    }
}

/// What somebody decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Approve,
    /// It does not go on.
    Reject,
    /// It goes on without the approvals that are missing.
    BreakGlass,
}

impl Choice {
    /// The name that the API and the database use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::BreakGlass => "break_glass",
        }
    }

    /// Reads what [`Choice::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Approve, Self::Reject, Self::BreakGlass].into_iter().find(|choice| choice.as_str() == text)
    }
}

impl Plan {
    /// The approvals without which the step at `place` must not run, by the places of their steps: all that stand before it.
    /// What runs always, and what undoes, waits for them and does not depend on how they end.
    pub fn gates(&self, place: usize) -> Vec<usize> {
        let Some(step) = self.steps.get(place) else { return Vec::new() };
        if step.always || step.is_rollback {
            return Vec::new();
        }
        let (mut gates, mut seen, mut open) = (Vec::new(), vec![false; self.steps.len()], step.needs.clone());
        while let Some(before) = open.pop() {
            if std::mem::replace(&mut seen[before], true) {
                continue;
            }
            if matches!(self.steps[before].work, Work::Approval(_)) {
                gates.push(before);
            }
            open.extend(&self.steps[before].needs);
        }
        gates.sort_unstable();
        gates
    }

    /// The same plan behind an approval that stands before all of it.
    pub fn behind(mut self, approval: Approval) -> Self {
        let mut name = "approval".to_owned();
        while self.steps.iter().any(|step| step.name == name) {
            name.push_str("-first");
        }
        for step in &mut self.steps {
            step.needs.iter_mut().for_each(|need| *need += 1);
            if step.needs.is_empty() && !step.is_rollback {
                step.needs.push(0);
            }
        }
        self.steps.insert(0, PlanStep::plain(name, Work::Approval(Box::new(approval))));
        self
    }

    /// The approval at `place`, if its step asks for one.
    pub fn approval(&self, place: usize) -> Option<&Approval> {
        match &self.steps.get(place)?.work {
            Work::Approval(approval) => Some(approval),
            _ => None,
        }
    }

    /// Whether the approval at `place` lets go on what stands behind it: people said so, or its condition, which looks at
    /// nothing but what was signed, does not ask them.
    pub fn is_approved(&self, place: usize, decisions: &[Decision], context: &Context) -> bool {
        let Some(approval) = self.approval(place) else { return false };
        if matches!(approval.verdict(decisions), Some((RunOutcome::Succeeded, _))) {
            return true;
        }
        let condition = self.steps[place].condition.as_deref();
        condition.is_some_and(|condition| matches!(condition::evaluate("if", condition, context), Ok(false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(choices: &[Choice]) -> Vec<Decision> {
        let each = choices.iter().map(|choice| Decision {
            actor: "ada".to_owned(),
            decision: *choice,
            reason: None,
            input: Default::default(),
            decided_at: Timestamp::UNIX_EPOCH,
        });
        each.collect()
    }

    fn plan(steps: &str) -> Plan {
        let job = crate::job::parse(&format!("name: x\nsteps:\n{steps}")).unwrap();
        Plan::of(&job, crate::id::JobId(uuid::Uuid::nil()), 1, Default::default()).unwrap()
    }

    #[test]
    fn it_takes_as_many_as_it_asks_for_and_one_ends_it() {
        let two = Approval { count: Some(2), ..Approval::default() };
        assert_eq!(two.verdict(&[]), None);
        assert_eq!(two.verdict(&decided(&[Choice::Approve])), None);
        let both = decided(&[Choice::Approve, Choice::Approve]);
        assert_eq!(two.verdict(&both), Some((RunOutcome::Succeeded, Reason::Approved)));
        let torn = decided(&[Choice::Approve, Choice::Approve, Choice::Reject]);
        assert_eq!(two.verdict(&torn), Some((RunOutcome::Failed, Reason::Rejected)));
        let broken = decided(&[Choice::Reject, Choice::BreakGlass]);
        assert_eq!(two.verdict(&broken), Some((RunOutcome::Succeeded, Reason::BrokenGlass)));
    }

    #[test]
    fn all_approvals_before_a_step_are_its_gates() {
        let plan = plan(
            "  - {name: a, run: x}\n  - {name: ok, approval: {}}\n  - {name: b, run: x}\n  - {name: c, run: x}\n  \
             - {name: tidy, run: x, always: true}\n  - {name: alone, run: x, needs: []}\n",
        );
        let gates: Vec<Vec<usize>> = (0..7).map(|place| plan.gates(place)).collect();
        assert_eq!(gates, [vec![], vec![], vec![1], vec![1], vec![], vec![], vec![]]);
    }

    #[test]
    fn an_approval_before_all_of_it() {
        let plan = plan("  - {name: approval, run: x}\n  - {name: b, run: x, needs: []}\n");
        let behind = plan.clone().behind(Approval::default());
        assert_eq!(behind.steps[0].name, "approval-first");
        assert_eq!((behind.gates(1), behind.gates(2)), (vec![0], vec![0]));
        assert_eq!(behind.steps[2].needs, [0]);
    }

    #[test]
    fn a_condition_that_does_not_hold_asks_nobody() {
        let plan =
            plan("  - {name: ok, approval: {}, if: execution.actor != 'robot'}\n  - {name: b, run: x}\n");
        let mut context = Context::default();
        assert!(!plan.is_approved(0, &[], &context));
        context.execution.actor = "robot".to_owned();
        assert!(plan.is_approved(0, &[], &context));
        assert!(!plan.is_approved(1, &decided(&[Choice::Approve]), &context), "it is no approval");
    }
}
