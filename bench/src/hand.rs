//! The swarm by hand: enrolls simulated agents with a token, like hosts, and keeps them connected.

use std::{
    io::Read as _,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use pki::EnrollToken;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    cli::Hand,
    clock,
    swarm::{self, Identity, Swarm, Trust},
};

/// How often the standing is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long one enrollment may be tried again, and the pause before that: a controller takes 20 a second from each
/// address.
const ENROLL_WITHIN: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Enrollments at the same time.
const ENROLLING: usize = 16;

/// Runs until its time is over.
///
/// # Errors
/// When the token is none or the controller does not take the agents.
pub(crate) async fn run(hand: &Hand) -> anyhow::Result<()> {
    ensure!(hand.controller.ip().is_loopback(), "{} is not of this machine", hand.controller);
    let token = EnrollToken::parse(&read(&hand.token_file)?).context("the enroll token cannot be used")?;
    let (trust, identities, pending) = enroll_all(hand, &token).await?;
    eprintln!(
        "swarm: {} agents are enrolled, {pending} of them wait for somebody to approve them",
        identities.len()
    );
    let swarm = Swarm::start(hand.controller, trust, identities)?;
    let begun = Instant::now();
    let mut tell = interval(TELL_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begun.elapsed() < Duration::from_secs(hand.seconds) {
        tell.tick().await;
        eprintln!("swarm: {swarm}");
    }
    swarm.stop().await;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the token from the standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read the token from {}", path.display()))
}

async fn enroll_all(
    hand: &Hand,
    token: &EnrollToken,
) -> anyhow::Result<(Arc<Trust>, Vec<Arc<Identity>>, usize)> {
    // Names of an earlier swarm stay taken.
    let tag = clock::now().as_second();
    let count = usize::try_from(hand.count)?;
    let (mut trust, mut identities, mut pending) = (None, Vec::with_capacity(count), 0);
    for from in (0..count).step_by(ENROLLING) {
        let batch = (from..count.min(from + ENROLLING)).map(|index| {
            let name = format!("{}-{tag}-{index}", hand.name);
            enroll(hand.controller, index, token, name)
        });
        for (identity, its_trust, is_pending) in futures_util::future::try_join_all(batch).await? {
            identities.push(Arc::new(identity));
            pending += usize::from(is_pending);
            trust = Some(its_trust);
        }
    }
    Ok((trust.context("there is nobody to enroll")?, identities, pending))
}

async fn enroll(
    controller: SocketAddr,
    index: usize,
    token: &EnrollToken,
    name: String,
) -> anyhow::Result<(Identity, Arc<Trust>, bool)> {
    let begun = Instant::now();
    loop {
        match swarm::enroll(swarm::place(controller, index), token, name.clone()).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(error) if begun.elapsed() > ENROLL_WITHIN => bail!("'{name}' cannot be enrolled: {error:#}"),
            Err(_) => sleep(AGAIN_AFTER).await,
        }
    }
}
