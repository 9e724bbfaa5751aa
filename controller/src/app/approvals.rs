//! Approvals: people decide whether an execution goes on.
//!
//! Invariants: a decision is signed with what it is about, and counts for nothing else; who started an execution does not approve
//! it; nobody decides twice; the dispatcher sends nothing behind an approval that the signed decisions do not carry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use model::{
    Invalid,
    access::BuiltInRole,
    api::approval::{ApprovalRequest, Decide, Decision},
    id::{ExecutionId, OrgId},
    job::{Approval, Choice, Plan, Work as StepWork, parameters::resolve},
    label::{Facts, Labels},
    run::RunState,
};
use prost::Message as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

use super::{
    App,
    access::{ApprovalBreakGlass, ApprovalDecide, Authorized, ExecutionRead, Right as _, Subject},
    executions::seen_whole,
    manifest::{self, Verified},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{
        self,
        approvals::{Asked, Which},
        audit,
        events::NewEvent,
        executions::SignedManifest,
    },
};

/// What the signature is made over, so that it can stand for nothing else.
const KIND: &str = "decision";
/// Approvals of one execution.
const OF_ONE: i64 = model::limits::STEPS as i64;

/// The decisions about each approval of an execution, by the place of its step.
pub(crate) type Decisions = HashMap<usize, Vec<Decision>>;

/// Those of several executions.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn decisions<'a>(
    app: &App,
    connection: &mut PgConnection,
    executions: impl IntoIterator<Item = (ExecutionId, &'a Verified)>,
) -> Result<HashMap<ExecutionId, Decisions>> {
    let verified: BTreeMap<ExecutionId, &Verified> = executions.into_iter().collect();
    let ids: Vec<uuid::Uuid> = verified.keys().map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut found: HashMap<ExecutionId, Decisions> = HashMap::new();
    // Whose it is stands in what was signed: a row that is there twice counts once.
    let mut seen = BTreeSet::new();
    for (id, signed) in store::approvals::decisions(connection, &ids).await? {
        let Some(verified) = verified.get(&id) else { continue };
        match read(app, (id, verified), &signed) {
            Ok((place, actor_id, decision)) => {
                let is_own = decision.decision == Choice::Approve && actor_id == verified.actor_id;
                if !is_own && seen.insert((id, place, actor_id)) {
                    found.entry(id).or_default().entry(place).or_default().push(decision);
                }
            }
            Err(why) => {
                tracing::error!(execution.id = %id, why, "a decision that nobody signed does not count");
            }
        }
    }
    Ok(found)
}

/// A decision with the place of its step and the id of who made it, if its signature holds and it is about this execution.
fn read(
    app: &App,
    (id, verified): (ExecutionId, &Verified),
    signed: &SignedManifest,
) -> std::result::Result<(usize, String, Decision), &'static str> {
    let time =
        |bytes: &[u8]| Timestamp::from_microsecond(proto::Decision::decode(bytes).ok()?.decided_at).ok();
    let verifier = app.ca.verifier();
    // The key signed it when it was in use; that its certificate has ended since does not matter.
    verifier
        .verify_dated(KIND, &signed.manifest, &signed.signature, &signed.certificate, time)
        .map_err(|_| "its signature does not hold")?;
    let decision = proto::Decision::decode(signed.manifest.as_slice()).map_err(|_| "it cannot be read")?;
    if decision.org_id != verified.org_id.to_bytes()
        || decision.execution_id != id.to_bytes()
        || decision.manifest_digest != verified.digest
    {
        return Err("it is about something else");
    }
    let unreadable = "it has a part that cannot be read";
    let read = Decision {
        actor: decision.actor,
        decision: Choice::parse(&decision.decision).ok_or(unreadable)?,
        reason: Some(decision.reason).filter(|reason| !reason.is_empty()),
        input: serde_json::from_str(&decision.input).map_err(|_| unreadable)?,
        decided_at: Timestamp::from_microsecond(decision.decided_at).map_err(|_| unreadable)?,
    };
    Ok((usize::try_from(decision.step).map_err(|_| unreadable)?, decision.actor_id, read))
}

/// Whether the approvals before the step at `place` let it run.
pub(crate) fn is_let_through(
    (id, verified): (ExecutionId, &Verified),
    place: usize,
    decisions: Option<&Decisions>,
) -> bool {
    let Some(plan) = verified.plan() else { return true };
    let gates = plan.gates(place);
    if gates.is_empty() {
        return true;
    }
    let context = verified.context(id, model::job::context::Host::default());
    gates.into_iter().all(|gate| {
        let made = decisions.and_then(|decisions| decisions.get(&gate)).map_or(&[][..], Vec::as_slice);
        plan.is_approved(gate, made, &context)
    })
}

/// The same, with the decisions as they are signed now.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn is_open(
    app: &App,
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    place: usize,
) -> Result<bool> {
    if verified.plan().is_none_or(|plan| plan.gates(place).is_empty()) {
        return Ok(true);
    }
    let decisions = decisions(app, connection, [(id, verified)]).await?;
    Ok(is_let_through((id, verified), place, decisions.get(&id)))
}

/// Tells those who follow the events that people are asked.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn announce(
    connection: &mut PgConnection,
    (id, verified): (ExecutionId, &Verified),
    place: usize,
    now: Timestamp,
) -> Result<()> {
    let Some(plan) = verified.plan() else { return Ok(()) };
    let Some(asks) = plan.approval(place) else { return Ok(()) };
    let data = json!({
        "step": plan.steps[place].name, "job": plan.job_name(), "started_by": verified.actor, "message": asks.message,
        "count": asks.count(), "expires_at": asks.expires_at(now),
    });
    let new = NewEvent {
        id: model::id::uuid_v7(now, clock::entropy()),
        at: now,
        kind: "approval.asked",
        object: &format!("execution/{id}"),
        actor: "",
        data: &data,
    };
    store::events::insert(connection, verified.org_id, &new).await
}

/// The approvals that an execution asks for, in the order of its steps.
///
/// # Errors
/// When there is no such execution.
pub(crate) async fn of_execution(
    app: &App,
    by: &Authorized<ExecutionRead>,
    id: ExecutionId,
) -> Result<Vec<ApprovalRequest>> {
    seen_whole(app, by, id).await?;
    let (org, pool) = (by.org_id(), app.db.of(by.org_id()));
    if store::executions::get(&pool, org, id).await?.is_none() {
        return Err(Error::not_found("execution", id.to_string()));
    }
    let asked = store::approvals::asked(&pool, org, Which::Of(id), None, OF_ONE).await?;
    shown(app, org, asked).await
}

/// Those that wait for people, the newest execution first, with what the cursor remembers of each.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn waiting(
    app: &App,
    by: &Authorized<ExecutionRead>,
    after: Option<(ExecutionId, i16)>,
    limit: i64,
) -> Result<Vec<((ExecutionId, i16), ApprovalRequest)>> {
    let (org, pool) = (by.org_id(), app.db.of(by.org_id()));
    let seen = match by.hosts() {
        Some(hosts) => Some(store::agents::ids(&pool, org, hosts).await?),
        None => None,
    };
    let asked = store::approvals::asked(&pool, org, Which::Waiting(after), seen.as_deref(), limit).await?;
    let keys: Vec<_> = asked.iter().map(|asked| (asked.execution_id, asked.place)).collect();
    Ok(keys.into_iter().zip(shown(app, org, asked).await?).collect())
}

/// As people see them, with the decisions that count.
async fn shown(app: &App, org: OrgId, asked: Vec<Asked>) -> Result<Vec<ApprovalRequest>> {
    let mut connection = app.db.of(org).acquire().await.during("acquire of a connection")?;
    let authorised =
        manifest::authorised(app, &mut connection, asked.iter().map(|asked| asked.execution_id)).await?;
    let holding =
        authorised.iter().filter_map(|(id, verified)| Some((*id, verified.as_ref().ok()?.as_ref())));
    let mut made = decisions(app, &mut connection, holding).await?;
    let requests = asked.into_iter().filter_map(|asked| {
        let StepWork::Approval(asks) = asked.step.work else { return None };
        let place = usize::try_from(asked.place).ok()?;
        let decisions = made.get_mut(&asked.execution_id).and_then(|all| all.remove(&place));
        Some(ApprovalRequest {
            execution_id: asked.execution_id,
            step: asked.step.name,
            state: asked.state,
            summary: asked.summary,
            job: asked.job,
            actor: asked.actor,
            hosts: asked.hosts,
            hash: hex::encode(Sha256::digest(&asked.manifest)),
            expires_at: asked.asked_at.map(|at| asks.expires_at(at)),
            asks: *asks,
            asked_at: asked.asked_at,
            decisions: decisions.unwrap_or_default(),
        })
    });
    Ok(requests.collect())
}

/// Records what somebody decides, signed.
///
/// # Errors
/// When there is no such step, it does not wait for a decision, it is not what the person looked at, or the person may not
/// decide it.
pub(crate) async fn decide(
    app: &App,
    by: &Authorized<ApprovalDecide>,
    id: ExecutionId,
    step: &str,
    request: &Decide,
) -> Result<ApprovalRequest> {
    request.validate()?;
    let reading: Authorized<ExecutionRead> = by.also()?;
    seen_whole(app, &reading, id).await?;
    let (org, now) = (by.org_id(), clock::now());
    let mut tx = app.db.of(org).begin().await.during("begin")?;
    let unknown = || Error::not_found("approval", format!("{step} of {id}"));
    let verified = match manifest::authorised(app, &mut tx, [id]).await?.remove(&id) {
        Some(Ok(verified)) if verified.org_id == org => verified,
        Some(Err(mismatch)) => {
            return Err(Error::Tampered(format!("the execution is not what was signed: {mismatch}")));
        }
        _ => return Err(Error::not_found("execution", id.to_string())),
    };
    let plan = verified.plan().ok_or_else(unknown)?;
    let place = plan.steps.iter().position(|planned| planned.name == step).ok_or_else(unknown)?;
    let approval = plan.approval(place).ok_or_else(unknown)?;
    if request.hash.to_ascii_lowercase() != hex::encode(verified.digest) {
        let why = format!(
            "the execution is another than the one that was looked at: its hash is {}",
            hex::encode(verified.digest)
        );
        return Err(Error::Conflict(why));
    }
    // A command of its own asks nobody.
    let job = plan.job.as_ref().ok_or_else(unknown)?;
    let labels = store::jobs::labels(&mut tx, org, job.id).await?;
    may_decide(&mut tx, by, &verified, approval, &labels, request.decision).await?;
    let input = match request.decision {
        Choice::Approve | Choice::BreakGlass => {
            resolve(&approval.input, &request.input).map_err(|invalid| {
                Invalid::new(invalid.field.replacen("parameters", "input", 1), invalid.problem)
            })?
        }
        _ if !request.input.is_empty() => {
            return Err(Invalid::new("input", "is for what lets it go on; say why in reason").into());
        }
        _ => Default::default(),
    };
    let number = i16::try_from(place).map_err(|_| unknown())?;
    match store::approvals::lock(&mut tx, (id, org), number, now).await? {
        Some((RunState::Active, asked_at)) => {
            if asked_at.is_some_and(|at| now >= approval.expires_at(at)) {
                return Err(Error::Conflict(format!(
                    "'{step}' has waited for too long: nobody decided in time"
                )));
            }
        }
        Some((RunState::Blocked, _)) => {
            return Err(Error::Conflict(format!(
                "'{step}' is not asked for yet: what it needs has not ended"
            )));
        }
        Some((state, _)) => {
            return Err(Error::Conflict(format!("'{step}' is decided: it is {}", state.as_str())));
        }
        None => return Err(unknown()),
    }
    let actor_id = by.actor().subject.to_string();
    let decision = proto::Decision {
        org_id: org.to_bytes(),
        execution_id: id.to_bytes(),
        step: u32::from(number.unsigned_abs()),
        manifest_digest: verified.digest.to_vec(),
        decision: request.decision.as_str().to_owned(),
        actor: by.actor().name.clone(),
        actor_id: actor_id.clone(),
        reason: request.reason.clone().unwrap_or_default(),
        input: serde_json::to_string(&input).map_err(|error| Error::internal("cannot write", error))?,
        decided_at: now.as_microsecond(),
    };
    let signed = sign(app, &decision);
    if !store::approvals::insert(&mut tx, (id, org), number, &actor_id, &signed, now).await? {
        return Err(Error::Conflict(format!("you have decided about '{step}' before, and a decision stays")));
    }
    let (verb, event) = match request.decision {
        Choice::Approve => ("approval.approve", "approval.approved"),
        Choice::Reject => ("approval.reject", "approval.rejected"),
        Choice::BreakGlass => ("approval.break_glass", "approval.broken_glass"),
    };
    let object = format!("execution/{id}");
    let detail = json!({
        "step": step, "job": job.name, "version": job.version, "started_by": verified.actor,
        "reason": request.reason, "input": input, "hash": request.hash,
    });
    let data = json!({ "step": step, "job": job.name, "reason": request.reason });
    let event = NewEvent {
        id: model::id::uuid_v7(now, clock::entropy()),
        at: now,
        kind: event,
        object: &object,
        actor: &by.actor().name,
        data: &data,
    };
    store::events::insert(&mut tx, org, &event).await?;
    audit::record(&mut tx, org, now, by.entry(verb, object.clone(), detail)).await?;
    tx.commit().await.during("commit")?;
    app.wake.advance.notify_one();
    app.wake.others.notify_one();
    let all = of_execution(app, &reading, id).await?;
    all.into_iter().find(|approval| approval.step == step).ok_or_else(unknown)
}

/// What is wrong with the approvals that a plan asks for, and those of the jobs that it starts: the roles that there are not.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn without_roles(app: &App, org: OrgId, plan: &Plan) -> Result<Vec<String>> {
    let mut connection = app.db.of(org).acquire().await.during("acquire of a connection")?;
    unknown_roles(&mut connection, org, plan).await
}

/// That each role is there that an approval of the plan names: else nobody could be found who approves.
///
/// # Errors
/// [`Error::Conflict`] when one is not.
pub(super) async fn check_roles(connection: &mut PgConnection, org: OrgId, plan: &Plan) -> Result<()> {
    match unknown_roles(connection, org, plan).await?.into_iter().next() {
        Some(why) => Err(Error::Conflict(why)),
        None => Ok(()),
    }
}

async fn unknown_roles(connection: &mut PgConnection, org: OrgId, plan: &Plan) -> Result<Vec<String>> {
    let mut named = Vec::new();
    let mut open = vec![plan];
    while let Some(plan) = open.pop() {
        open.extend(plan.started_jobs().filter_map(|(_, job)| Some(&job.frozen.as_ref()?.plan)));
        for (place, step) in plan.steps.iter().enumerate() {
            let roles = plan.approval(place).map(|approval| approval.roles.as_slice()).unwrap_or_default();
            named.extend(roles.iter().map(|role| (plan.job_name().unwrap_or_default(), &step.name, role)));
        }
    }
    named.retain(|(_, _, role)| BuiltInRole::parse(role).is_none());
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = named.iter().map(|(_, _, role)| (*role).clone()).collect();
    let there = store::roles::existing(connection, org, &names).await?;
    named.retain(|(_, _, role)| !there.contains(role));
    let said = named.into_iter().map(|(job, step, role)| {
        format!(
            "the approval '{step}' of the job '{job}' is for the role '{role}', and there is no such role"
        )
    });
    Ok(said.collect())
}

fn sign(app: &App, decision: &proto::Decision) -> SignedManifest {
    let bytes = decision.encode_to_vec();
    let signer = app.ca.signer();
    SignedManifest {
        signature: signer.sign(KIND, &bytes),
        certificate: signer.certificate().to_vec(),
        manifest: bytes,
    }
}

/// Whether this person decides about this approval.
async fn may_decide(
    connection: &mut PgConnection,
    by: &Authorized<ApprovalDecide>,
    verified: &Verified,
    approval: &Approval,
    labels: &Labels,
    choice: Choice,
) -> Result<()> {
    let actor = by.actor();
    let refused = |why: &str| Err(actor.refusal(ApprovalDecide::PERMISSION, why));
    let Subject::User(user) = actor.subject else {
        return refused("people approve: a service account is as many people as its owner likes");
    };
    if choice == Choice::BreakGlass {
        let _: Authorized<ApprovalBreakGlass> = by.also()?;
        return Ok(());
    }
    if !by.reaches_job(labels) {
        return refused("theirs is for jobs with other labels");
    }
    // Whoever started it may well stop it.
    if choice == Choice::Approve && verified.actor_id == actor.subject.to_string() {
        return refused("who started it does not approve it");
    }
    if approval.roles.is_empty() && approval.groups.is_empty() {
        return Ok(());
    }
    let has_role = actor.grants.iter().any(|grant| {
        approval.roles.contains(&grant.role)
            && grant.hosts.is_none()
            && grant.jobs.as_ref().is_none_or(|jobs| jobs.matches("", labels, &Facts::new()))
    });
    if has_role || store::groups::is_member(connection, actor.org_id, user, &approval.groups).await? {
        return Ok(());
    }
    let who: Vec<&str> = approval.roles.iter().chain(&approval.groups).map(String::as_str).collect();
    refused(&format!("this one is for {}", who.join(", ")))
}
