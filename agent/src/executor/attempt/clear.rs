//! What is left of an attempt that is over: ended, cleared away, or made sure of.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::{TRY_AGAIN, connect};
use crate::{
    executor::name,
    messages::AttemptKey,
    sandbox::{strays, temporary},
    segment,
    shim::{self, container::note, control::ToShim, lock::Lock, record},
};

/// The longest pause between tries to remove a folder.
const CLEAR_AGAIN: Duration = Duration::from_secs(60);

/// Where an attempt is, or was.
#[derive(Debug)]
pub(in crate::executor) struct Grave {
    pub(in crate::executor) key: AttemptKey,
    pub(in crate::executor) folder: PathBuf,
}

/// Ends what runs in a folder that the journal has no use for, and removes it. Nothing is reported: the attempt is settled,
/// or orders of the journal that knew it are refused. One with a result is moved to `aside`, where that is given.
///
/// Goes on until the folder is gone: what cannot be killed holds its control group, and that the folder.
pub(in crate::executor) async fn clear_away(folder: PathBuf, aside: Option<PathBuf>) {
    let mut pause = TRY_AGAIN;
    loop {
        if let Ok(mut stream) = connect(&folder) {
            let _ = stream.write_all(&[ToShim::Cancel.byte()]).await;
            // Until it is gone.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
        let (from, to) = (folder.clone(), aside.clone());
        let cleared = tokio::task::spawn_blocking(move || clear(&from, to.as_deref())).await;
        match cleared.unwrap_or_else(|error| Err(error.into())) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) if pause >= CLEAR_AGAIN => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove the folder of a run");
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CLEAR_AGAIN);
    }
}

/// Removes what takes the room in a folder that is to stay.
pub(in crate::executor) fn remove_output(folder: &Path) {
    // Gone already, or kept by a file system in trouble: the folder is cleared away later.
    let _ = std::fs::remove_file(folder.join(segment::FILE_NAME));
}

/// Clears the folder once; false while its shim lives.
fn clear(folder: &Path, aside: Option<&Path>) -> io::Result<bool> {
    let is_gone = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    match Lock::take(folder) {
        Ok(Some(_lock)) => {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(group) = shim::noted_cgroup(folder, name) {
                group.kill()?;
                group.remove()?;
            }
            note::kill_noted(folder, name);
            note::remove_noted(folder, name)?;
            temporary::remove(folder, name)?;
            if let Some(aside) = aside
                && record::read(folder)?.is_some()
            {
                tracing::warn!(folder = %aside.display(), "set aside the result of a run that the journal does not know");
                std::fs::rename(folder, aside)?;
            } else {
                std::fs::remove_dir_all(folder)?;
            }
            Ok(true)
        }
        Ok(None) => Ok(false),
        // Somebody removed it, or it is some other file.
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Ends all that is left of an attempt, and makes sure that nothing of it begins any more. True once its shim is gone, its
/// control group empty, and no process known that carries its variables; false when that is not so after `within`.
pub(in crate::executor) async fn bury(grave: Grave, within: Duration) -> bool {
    let Grave { key, folder } = grave;
    let until = Instant::now() + within;
    loop {
        // A shim that nobody follows is one that a lost journal knew.
        if let Ok(mut stream) = connect(&folder) {
            let _ = stream.write_all(&[ToShim::Cancel.byte()]).await;
        }
        let there = folder.clone();
        let closed = tokio::task::spawn_blocking(move || close(key, &there)).await;
        match closed.unwrap_or_else(|error| Err(error.into())) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(run.id = %key.run_id, run.attempt = key.attempt, %error, "cannot look after an earlier attempt");
            }
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Looks once, and kills what is left; false as long as there is something.
fn close(key: AttemptKey, folder: &Path) -> io::Result<bool> {
    match Lock::take(folder) {
        Ok(Some(lock)) => {
            lock.give_up(folder)?;
            if let Some(group) = shim::noted_cgroup(folder, &name(key))
                && group.is_populated()
            {
                group.kill()?;
                return Ok(false);
            }
            note::kill_noted(folder, &name(key));
            note::remove_noted(folder, &name(key))?;
        }
        Ok(None) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(strays::kill(key.run_id, key.attempt).is_empty())
}
