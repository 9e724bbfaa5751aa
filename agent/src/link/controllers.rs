//! Which controllers there are, where nobody configured them: the one that the agent enrolled with, and those that
//! announced themselves to it. One address a line, in `link/controllers` of the data folder; the first is the one that
//! the agent enrolled with, and stays.

use std::{io, path::Path};

use model::limits;

use super::{connect::Address, identity};

const FILE: &str = "controllers";
/// More is not read.
const BYTES: usize = 64 * 1024;

/// Keeps the list: whole or not at all, and durable.
///
/// # Errors
/// When the folder cannot be written.
pub fn save(folder: &Path, controllers: &[Address]) -> io::Result<()> {
    let text: String = controllers.iter().map(|address| format!("{address}\n")).collect();
    let (path, fresh) = (folder.join(FILE), folder.join("controllers.new"));
    identity::write_private(&fresh, text.as_bytes())
        .and_then(|()| std::fs::rename(&fresh, &path))
        .and_then(|()| identity::sync_folder(folder))
}

/// The list as it was kept.
///
/// # Errors
/// When it cannot be read, a line of it is no address, or there is none.
pub fn load(folder: &Path) -> io::Result<Vec<Address>> {
    let text = std::fs::read_to_string(folder.join(FILE))?;
    if text.len() > BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let lines = text.lines();
    let found: Vec<Address> = lines
        .map(|line| line.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
        .collect::<io::Result<_>>()?;
    if found.is_empty() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(found) }
}

/// The list anew: the first of `known`, then what is announced, and `present` if it is neither. `None` when nothing that
/// is an address is announced.
pub(super) fn merge(known: &[Address], present: &Address, announced: &[String]) -> Option<Vec<Address>> {
    let announced = announced.iter().take(limits::ANNOUNCED_CONTROLLERS).filter_map(|text| text.parse().ok());
    let announced: Vec<Address> = announced.collect();
    if announced.is_empty() {
        return None;
    }
    let mut merged: Vec<Address> = Vec::new();
    for address in known.first().into_iter().chain(&announced).chain([present]) {
        if !merged.contains(address) {
            merged.push(address.clone());
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_stays_and_what_is_announced_replaces_the_rest() {
        let known = addresses(&["a:1", "gone:1"]);
        let announced = ["b:1", "no address", "a:1", "c:1"].map(str::to_owned);
        assert_eq!(merge(&known, &known[0], &announced).unwrap(), addresses(&["a:1", "b:1", "c:1"]));
        let present = &known[1];
        assert_eq!(merge(&known, present, &announced).unwrap(), addresses(&["a:1", "b:1", "c:1", "gone:1"]));
        assert_eq!(merge(&known, present, &[]), None);
    }

    #[test]
    fn the_list_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let list = addresses(&["a:1", "[::1]:7443"]);
        save(folder.path(), &list).unwrap();
        assert_eq!(load(folder.path()).unwrap(), list);
        std::fs::write(folder.path().join("controllers"), "what\n").unwrap();
        assert_eq!(load(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
