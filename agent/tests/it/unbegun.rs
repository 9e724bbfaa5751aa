//! What an agent leaves that dies between its decision and the first step of the shim.

use opsconductor_agent::{
    executor::journal::{Change, Entry, State},
    messages::AttemptKey,
};

use crate::{
    one_shim::LOOK_EVERY,
    world::{World, command, new_key},
};

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

fn entry(key: AttemptKey, state: State, boot_id: &str) -> Entry {
    Entry {
        execution_id: key.execution_id.to_bytes(),
        state: state.into(),
        boot_id: boot_id.to_owned(),
        ..Entry::default()
    }
}

async fn remembered(state: State, boot_id: &str) -> (World, AttemptKey) {
    let (world, key) = (World::new(), new_key());
    world.remember(vec![Change::Put(key, entry(key, state, boot_id).into())]).await;
    (world, key)
}

#[tokio::test]
async fn an_attempt_without_a_folder_never_began_and_never_will() {
    let (world, key) = remembered(State::Starting, &boot_id()).await;
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.refusal().await.0, "not_started");
    world.run(&agent, key, "true").await;
    assert_eq!(agent.refusal().await.0, "not_started", "its order starts nothing any more");
    agent.stop().await;
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.held, [key], "until the controller has answered the refusal");
    world.run(&agent, key, "true").await;
    assert_eq!(agent.refusal().await.0, "not_started", "nor after a restart");
    agent.stop().await;
}

#[tokio::test]
async fn an_attempt_whose_shim_was_never_ready_never_began() {
    let (world, key) = remembered(State::Starting, &boot_id()).await;
    let folder = world.folder(key);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("lock"), "").unwrap();
    std::fs::write(folder.join("output"), "").unwrap();
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.refusal().await.0, "not_started");
    while folder.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn where_there_is_a_doubt_it_is_lost() {
    // Its shim was ready, and may have started it.
    let (world, key) = remembered(State::Starting, &boot_id()).await;
    std::fs::create_dir(world.folder(key)).unwrap();
    std::fs::write(world.folder(key).join("control.sock"), "").unwrap();
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.loss().await.0, "shim_lost");
    agent.stop().await;

    // What a folder does not show may have been lost with the power.
    let (world, _) = remembered(State::Starting, "another boot").await;
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.loss().await.0, "host_rebooted");
    agent.stop().await;

    // It is known to have run, wherever its folder went.
    let (world, key) = remembered(State::Started, &boot_id()).await;
    let mut agent = world.start(1, false).await;
    assert_eq!(agent.loss().await.0, "shim_lost");
    // And what is lost is not begun by its order either.
    let order = world.order(&agent, key, command("true"));
    agent.to_executor.send(world.sign(&order)).await.unwrap();
    assert_eq!(agent.loss().await.0, "shim_lost");
    agent.stop().await;
}
