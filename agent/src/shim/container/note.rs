//! The note of a container in its attempt's folder: so that it is found, and removed, when its shim is gone.
//!
//! It is on the disk from before the container is made until it was seen to be removed. An engine may make one whose shim is
//! gone by then, and was not to be found when it was looked for: such a one is found by its labels (see [`super::sweep`]).

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::engine::{Engine, NAME_PREFIX};
use crate::sandbox::cgroup::Cgroup;

const FILE_NAME: &str = "container";
/// The label that says which attempt a container belongs to: the run's id, `-`, and the attempt's number.
pub const ATTEMPT_LABEL: &str = "opsconductor.attempt";
/// The label that says whose it is: an engine may serve several agents.
pub const AGENT_LABEL: &str = "opsconductor.agent";
/// How long the removal of one may take, all in all.
const WITHIN: Duration = Duration::from_secs(15);

/// What a note says.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    socket: PathBuf,
    /// The container's id at its engine, once it was made.
    id: Option<String>,
}

/// The labels of an attempt's container.
pub(super) fn labels(agent: &str, attempt: &str) -> HashMap<String, String> {
    HashMap::from([
        (ATTEMPT_LABEL.to_owned(), attempt.to_owned()),
        (AGENT_LABEL.to_owned(), agent.to_owned()),
    ])
}

/// Notes the container `name` of the engine behind `socket` in the current directory, and waits for the disk.
pub(super) fn write(socket: &Path, name: &str) -> io::Result<()> {
    let mut note = socket.as_os_str().as_bytes().to_vec();
    note.extend_from_slice(b"\n");
    note.extend_from_slice(name.as_bytes());
    let mut file = File::create(FILE_NAME)?;
    file.write_all(&note)?;
    file.sync_all()?;
    File::open(".")?.sync_all()
}

/// Adds the id of the container that was made. A host that loses power has no processes for which it would be needed.
pub(super) fn add_id(id: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(FILE_NAME)?.write_all(format!("\n{id}").as_bytes())
}

/// The container is gone.
pub(super) fn forget() {
    // A note too many costs whoever removes the folder a question.
    let _ = fs::remove_file(FILE_NAME);
}

/// Kills what runs of the container that is noted in the folder of the attempt `name`, without its engine: by its control
/// group. Says whether nothing is left in that; none when no group is found, as of one that has ended.
pub fn kill_noted(folder: &Path, name: &str) -> Option<bool> {
    let noted = fs::read(folder.join(FILE_NAME)).ok();
    let noted = noted.and_then(|note| parse(&note, &format!("{NAME_PREFIX}{name}")));
    let group = Cgroup::of_container(&noted?.id?)?;
    Some(group.kill().is_ok() && !group.is_populated())
}

/// Removes the container that is noted in the folder of the attempt `name`, running or not. Without a note there is nothing
/// to do. It blocks, for seconds where the engine is in trouble.
///
/// # Errors
/// When the engine does not answer, or the container is still there.
pub fn remove_noted(folder: &Path, name: &str) -> io::Result<()> {
    let note = match fs::read(folder.join(FILE_NAME)) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let container = format!("{NAME_PREFIX}{name}");
    // One that was cut off was being written, and then no container was made yet.
    let Some(Note { socket, .. }) = parse(&note, &container) else { return Ok(()) };
    let owner = name.to_owned();
    // Callers may be on a thread that has a runtime already.
    let removal = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let removal = async {
            let engine = Engine::at(&socket).await?;
            remove_own(&engine, &container, &owner).await
        };
        match runtime.block_on(async { tokio::time::timeout(WITHIN, removal).await }) {
            Ok(removed) => removed.map_err(io::Error::other),
            Err(_) => Err(io::Error::other(format!("no answer within {} s", WITHIN.as_secs()))),
        }
        .map_err(|error| io::Error::other(format!("the container '{container}' cannot be removed: {error}")))
    });
    let removed = removal.join().unwrap_or_else(|_| Err(io::Error::other("the removal failed")));
    if removed.is_ok() {
        let _ = fs::remove_file(folder.join(FILE_NAME));
    }
    removed
}

fn parse(note: &[u8], container: &str) -> Option<Note> {
    let mut lines = note.split(|byte| *byte == b'\n');
    let socket = PathBuf::from(OsStr::from_bytes(lines.next()?));
    if lines.next()? != container.as_bytes() {
        return None;
    }
    let id = lines.next().and_then(|id| str::from_utf8(id).ok()).map(str::to_owned);
    Some(Note { socket, id })
}

/// Whether a container with these labels is the attempt's, and not just called like it.
fn is_own(labels: Option<&HashMap<String, String>>, attempt: &str) -> bool {
    labels.and_then(|labels| labels.get(ATTEMPT_LABEL)).is_some_and(|label| label == attempt)
}

/// Removes the container if it is the attempt's. One that is not there is removed.
pub(super) async fn remove_own(engine: &Engine, container: &str, attempt: &str) -> Result<(), String> {
    match engine.look(container).await? {
        Some(found) if is_own(found.config.as_ref().and_then(|config| config.labels.as_ref()), attempt) => {
            engine.remove(container).await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_whole_or_not_at_all() {
        let noted =
            |id: Option<&str>| Some(Note { socket: PathBuf::from("/run/x.sock"), id: id.map(str::to_owned) });
        let read = |note: &[u8]| parse(note, "opsconductor-a-1");
        assert_eq!(read(b"/run/x.sock\nopsconductor-a-1"), noted(None));
        assert_eq!(read(b"/run/x.sock\nopsconductor-a-1\nc0ffee"), noted(Some("c0ffee")));
        for cut_off in [&b""[..], b"/run/x.sock", b"/run/x.sock\n", b"/run/x.sock\nopsconductor-a-"] {
            assert_eq!(read(cut_off), None);
        }
    }

    #[test]
    fn without_a_note_there_is_nothing_to_remove_and_without_an_engine_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        remove_noted(folder.path(), "a-1").unwrap();
        fs::write(folder.path().join(FILE_NAME), "/no/such.sock\nopsconductor-a-1").unwrap();
        let why = remove_noted(folder.path(), "a-1").unwrap_err().to_string();
        assert!(why.contains("opsconductor-a-1") && why.contains("not there"), "{why}");
        assert!(folder.path().join(FILE_NAME).exists());
        assert_eq!(kill_noted(folder.path(), "a-1"), None, "of one without an id nothing is known");
    }
}
