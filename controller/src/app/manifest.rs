//! Manifests: what was authorised, signed in the transaction that authorises it, and checked before anything is sent.
//!
//! Invariants: nothing is dispatched whose manifest does not verify, or does not cover exactly this run on this agent
//! with this command. A signature counts while its certificate is valid; a manifest itself never changes. What a cache
//! holds was verified; rows that change afterwards are compared with it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use model::{
    command::Command,
    id::{AgentId, ExecutionId, OrgId, RunId},
    job::{
        Plan,
        context::{Context, ExecutionFacts, Host},
    },
};
use prost::Message;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{App, ca::Ca};
use crate::{
    clock,
    error::{During, Result as AppResult},
    store::{
        self,
        executions::{Authorised, SignedManifest, Work},
        runs::Covered,
    },
};

/// What the signature is made over, so that it can stand for nothing else.
const KIND: &str = "manifest";
/// Bytes that the cache holds at most, about: of each execution its command, and so many for each of its runs.
const CACHED_BYTES: usize = 64 * 1024 * 1024;
const RUN_BYTES: usize = 64;

/// A manifest that was verified, with what it covers.
#[derive(Debug)]
pub(crate) struct Verified {
    pub org_id: OrgId,
    pub work: Work,
    pub actor: String,
    /// By which nobody else is meant; empty in those of before there were people.
    pub actor_id: String,
    pub request_id: String,
    /// When the first try must have begun.
    pub start_by: Timestamp,
    /// How long each further one may wait for its host.
    pub start_within: SignedDuration,
    /// SHA-256 of the manifest's bytes.
    pub digest: [u8; 32],
    covers: HashMap<RunId, (AgentId, Option<i16>)>,
    /// What it weighs in a cache.
    bytes: usize,
}

impl Verified {
    /// What was authorised of exactly this run on this agent.
    pub(crate) fn command(&self, run: RunId, agent: AgentId) -> Option<&Command> {
        let (authorised, step) = self.covers.get(&run)?;
        if *authorised == agent { self.work.command(*step) } else { None }
    }

    /// The place of this run's step, if it has one.
    pub(crate) fn place(&self, run: RunId) -> Option<usize> {
        usize::try_from(self.covers.get(&run)?.1?).ok()
    }

    /// What a template or a condition of the plan sees on this host, but for the steps before.
    pub(crate) fn context(&self, execution: ExecutionId, host: Host) -> Context {
        let Work::Plan(plan) = &self.work else { return Context::default() };
        let job = plan.job.as_ref();
        Context {
            params: job.map(|job| job.parameters.clone()).unwrap_or_default(),
            host,
            execution: ExecutionFacts {
                id: execution.to_string(),
                job: job.map(|job| job.name.clone()).unwrap_or_default(),
                version: job.map_or(0, |job| job.version.into()),
                actor: self.actor.clone(),
                undoes: plan.undoes.map(|id| id.to_string()).unwrap_or_default(),
                due: plan.due.map(|due| due.to_string()).unwrap_or_default(),
            },
            ..Context::default()
        }
    }

    /// The plan, if it has one.
    pub(crate) const fn plan(&self) -> Option<&Plan> {
        match &self.work {
            Work::Plan(plan) => Some(plan),
            Work::Command(_) => None,
        }
    }

    /// What was authorised of this run, wherever it is.
    pub(crate) fn command_of(&self, run: RunId) -> Option<&Command> {
        self.work.command(self.covers.get(&run)?.1)
    }
}

/// Why an execution's rows are not what somebody authorised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("the manifest's signature does not hold")]
    Signature(#[source] pki::Error),
    #[error("the manifest cannot be read")]
    Unreadable(#[source] prost::DecodeError),
    #[error("the manifest is of another execution or organization")]
    OfAnother,
    #[error("the command is not the authorised one")]
    Command,
    #[error("the plan is not the authorised one")]
    Plan,
    #[error("the targets are not the authorised ones")]
    Targets,
}

/// What an actor authorises, before it is signed.
#[derive(Debug)]
pub(crate) struct Intent<'a> {
    pub org_id: OrgId,
    pub execution_id: ExecutionId,
    pub actor: &'a str,
    pub actor_id: &'a str,
    pub request_id: &'a str,
    pub issued_at: Timestamp,
    pub start_by: Timestamp,
    pub work: &'a Work,
    /// In the order of the run ids.
    pub targets: &'a [Covered],
}

/// Signs what an actor authorises.
pub(crate) fn sign(ca: &Ca, intent: &Intent<'_>) -> SignedManifest {
    let (command, plan) = digests(intent.work);
    let manifest = proto::Manifest {
        org_id: intent.org_id.to_bytes(),
        execution_id: intent.execution_id.to_bytes(),
        actor: intent.actor.to_owned(),
        actor_id: intent.actor_id.to_owned(),
        request_id: intent.request_id.to_owned(),
        issued_at: intent.issued_at.as_microsecond(),
        start_by: intent.start_by.as_microsecond(),
        command_digest: command,
        plan_digest: plan,
        targets_digest: targets_digest(intent.targets).to_vec(),
        targets: u32::try_from(intent.targets.len()).unwrap_or(u32::MAX),
    }
    .encode_to_vec();
    let signer = ca.signer();
    SignedManifest {
        signature: signer.sign(KIND, &manifest),
        certificate: signer.certificate().to_vec(),
        manifest,
    }
}

/// Verifies what the tables say of an execution against its manifest. The certificate has to be valid now: a key that
/// is out of use signs nothing any more, whatever time it claims. What waits for longer is signed anew ([`sign_anew`]).
pub(crate) fn verify(
    ca: &Ca,
    row: Authorised,
    targets: &[Covered],
    now: Timestamp,
) -> Result<Verified, Mismatch> {
    let signed = &row.signed;
    ca.verifier()
        .verify(KIND, &signed.manifest, &signed.signature, &signed.certificate, now)
        .map_err(Mismatch::Signature)?;
    let manifest = proto::Manifest::decode(signed.manifest.as_slice()).map_err(Mismatch::Unreadable)?;
    let time = |micros| Timestamp::from_microsecond(micros).map_err(|_| Mismatch::OfAnother);
    let (issued_at, start_by) = (time(manifest.issued_at)?, time(manifest.start_by)?);
    if manifest.execution_id != row.id.as_bytes() || manifest.org_id != row.org_id.as_bytes() {
        return Err(Mismatch::OfAnother);
    }
    let (command, plan) = digests(&row.work);
    if manifest.command_digest != command {
        return Err(Mismatch::Command);
    }
    if manifest.plan_digest != plan {
        return Err(Mismatch::Plan);
    }
    if usize::try_from(manifest.targets) != Ok(targets.len())
        || manifest.targets_digest != targets_digest(targets)
    {
        return Err(Mismatch::Targets);
    }
    Ok(Verified {
        org_id: OrgId(row.org_id),
        bytes: weight(&row.work, targets.len()),
        actor: manifest.actor,
        actor_id: manifest.actor_id,
        request_id: manifest.request_id,
        start_by,
        start_within: match &row.work {
            Work::Command(_) => start_by.duration_since(issued_at),
            Work::Plan(plan) => plan.start_within.duration(),
        },
        work: row.work,
        digest: Sha256::digest(&signed.manifest).into(),
        covers: targets.iter().map(|covered| (covered.run, (covered.agent, covered.step))).collect(),
    })
}

/// What each execution's manifest says, from the cache or from the tables.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn authorised(
    app: &App,
    connection: &mut PgConnection,
    ids: impl IntoIterator<Item = ExecutionId>,
) -> AppResult<HashMap<ExecutionId, Result<Arc<Verified>, Mismatch>>> {
    let ids: BTreeSet<ExecutionId> = ids.into_iter().collect();
    let mut known = HashMap::with_capacity(ids.len());
    let mut missing = Vec::new();
    for id in ids {
        match app.manifests.get(id) {
            Some(verified) => {
                known.insert(id, Ok(verified));
            }
            None => missing.push(id.0),
        }
    }
    if missing.is_empty() {
        return Ok(known);
    }
    let mut targets: HashMap<ExecutionId, Vec<Covered>> = HashMap::new();
    for (execution, covered) in store::runs::coverage(connection, &missing).await? {
        targets.entry(execution).or_default().push(covered);
    }
    for row in store::executions::authorised(connection, &missing).await? {
        let id = ExecutionId(row.id);
        let targets = targets.get(&id).map_or(&[][..], Vec::as_slice);
        let verdict = verify(&app.ca, row, targets, clock::now()).map(Arc::new);
        if let Ok(verified) = &verdict {
            app.manifests.insert(id, Arc::clone(verified));
        }
        known.insert(id, verdict);
    }
    Ok(known)
}

/// Signs the manifests anew of executions that are not over and were signed before `before`, if their present signatures
/// hold; answers how many it looked at.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn sign_anew(app: &App, before: Timestamp, limit: i64) -> AppResult<usize> {
    let now = clock::now();
    let mut tx = app.db.worker().begin().await.during("begin")?;
    let found = store::manifests::signed_before(&mut tx, before, limit).await?;
    for (id, mut signed) in found.iter().cloned() {
        let holds =
            app.ca.verifier().verify(KIND, &signed.manifest, &signed.signature, &signed.certificate, now);
        match holds {
            Ok(_) => {
                let signer = app.ca.signer();
                signed.signature = signer.sign(KIND, &signed.manifest);
                signed.certificate = signer.certificate().to_vec();
            }
            // It stays as it is, and the dispatcher refuses it.
            Err(error) => tracing::warn!(execution.id = %id, %error, "a manifest is not signed anew"),
        }
        store::manifests::replace_signature(&mut tx, id, &signed, now).await?;
    }
    tx.commit().await.during("commit")?;
    Ok(found.len())
}

/// The JSON whose digest is signed: its fields are in the order of their declaration, its maps sorted.
fn canonical(work: &Work) -> Vec<u8> {
    match work {
        Work::Command(command) => serde_json::to_vec(command),
        Work::Plan(plan) => serde_json::to_vec(plan),
    }
    .expect("it has only strings, numbers and maps of strings")
}

/// Bytes that an execution takes in memory, about.
pub(crate) fn weight(work: &Work, runs: usize) -> usize {
    2 * canonical(work).len() + runs * RUN_BYTES
}

/// SHA-256 of the command and of the plan; of what there is none, nothing.
fn digests(work: &Work) -> (Vec<u8>, Vec<u8>) {
    let digest = Sha256::digest(canonical(work)).to_vec();
    match work {
        Work::Command(_) => (digest, Vec::new()),
        Work::Plan(_) => (Vec::new(), digest),
    }
}

/// SHA-256 over (run id ‖ agent id ‖ place of the step, where it has one) in the order of the run ids.
fn targets_digest(targets: &[Covered]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for Covered { run, agent, step } in targets {
        hash.update(run.0.as_bytes());
        hash.update(agent.0.as_bytes());
        if let Some(step) = step {
            hash.update(step.to_be_bytes());
        }
    }
    hash.finalize().into()
}

/// Verified executions, the oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    verified: HashMap<ExecutionId, Arc<Verified>>,
    order: VecDeque<ExecutionId>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn get(&self, id: ExecutionId) -> Option<Arc<Verified>> {
        self.inner.lock().expect("no holder of this lock panics").verified.get(&id).cloned()
    }

    pub(crate) fn insert(&self, id: ExecutionId, verified: Arc<Verified>) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        inner.bytes += verified.bytes;
        match inner.verified.insert(id, verified) {
            Some(replaced) => inner.bytes -= replaced.bytes,
            None => inner.order.push_back(id),
        }
        while inner.bytes > CACHED_BYTES {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(gone) = inner.verified.remove(&oldest) {
                inner.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{command::Program, id::ControllerId};

    use super::*;

    fn id<T: From<uuid::Uuid>>(number: u128) -> T {
        uuid::Uuid::from_u128(number).into()
    }

    fn covered(run: u128, agent: u128) -> Covered {
        Covered { run: id(run), agent: id(agent), step: None }
    }

    fn command(word: &str) -> Command {
        Command {
            env: [("A".to_owned(), "b".to_owned())].into(),
            ..Command::new(Program::Argv(vec![word.to_owned()]))
        }
    }

    /// An authority in a folder of its own, and an execution of two runs signed by it.
    fn signed() -> (Ca, Authorised, Vec<Covered>) {
        let folder = tempfile::tempdir().unwrap();
        let now = clock::now();
        super::super::ca::create(folder.path(), "opsc-test", now).unwrap();
        let life = std::time::Duration::from_secs(3600);
        let ca = Ca::open(folder.path(), ControllerId(uuid::Uuid::from_u128(9)), life, now).unwrap();
        let targets = vec![covered(1, 11), covered(2, 12)];
        let work = Work::Command(command("true"));
        let intent = Intent {
            org_id: id(5),
            execution_id: id(6),
            actor: "me",
            actor_id: "user/me",
            request_id: "r1",
            issued_at: now,
            start_by: now,
            work: &work,
            targets: &targets,
        };
        let signed = sign(&ca, &intent);
        let row = Authorised { id: id(6), org_id: id(5), work, signed };
        (ca, row, targets)
    }

    #[test]
    fn covers_what_was_signed_and_nothing_else() {
        let (ca, row, targets) = signed();
        let verified = verify(&ca, row, &targets, clock::now()).unwrap();
        assert_eq!(verified.command(id(1), id(11)), Some(&command("true")));
        assert_eq!(verified.command(id(1), id(12)), None, "another agent");
        assert_eq!(verified.command(id(3), id(11)), None, "another run");
        assert_eq!(verified.actor, "me");
    }

    #[test]
    fn a_signature_outlives_its_key_and_not_its_certificate() {
        let (ca, row, targets) = signed();
        let again = || Authorised {
            id: row.id,
            org_id: row.org_id,
            work: Work::Command(command("true")),
            signed: row.signed.clone(),
        };
        ca.renew(clock::now()).unwrap();
        verify(&ca, again(), &targets, clock::now()).unwrap();
        let later = clock::now() + jiff::SignedDuration::from_secs(3602);
        assert!(matches!(verify(&ca, again(), &targets, later), Err(Mismatch::Signature(_))));
    }

    #[test]
    fn edited_rows_do_not_verify() {
        let (ca, mut row, targets) = signed();
        row.work = Work::Command(command("false"));
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::Command)));

        let (ca, mut row, targets) = signed();
        row.work = Work::Command(Command { retry: Some(model::retry::Retry::of(2)), ..command("true") });
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::Command)));

        let (ca, mut row, targets) = signed();
        row.work = Work::Command(Command { idempotent: true, ..command("true") });
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::Command)));

        let (ca, row, mut targets) = signed();
        targets.push(covered(3, 13));
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::Targets)));

        let (ca, mut row, targets) = signed();
        row.id = id(7);
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::OfAnother)));

        let (ca, mut row, targets) = signed();
        *row.signed.manifest.last_mut().unwrap() ^= 1;
        assert!(matches!(verify(&ca, row, &targets, clock::now()), Err(Mismatch::Signature(_))));

        let (_, row, targets) = signed();
        let (other, ..) = signed();
        assert!(matches!(verify(&other, row, &targets, clock::now()), Err(Mismatch::Signature(_))));
    }
}
