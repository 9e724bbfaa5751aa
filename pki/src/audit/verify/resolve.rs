//! What became of the entries that do not agree with their hashes.

use std::collections::HashSet;

use super::{Finding, Verification};
use crate::audit::{Hash, link};

/// An entry that does not give its hash behind the one that stands before it.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) seq: i64,
    /// The hash that stands at the number before.
    pub(super) previous: Option<Hash>,
    pub(super) stored: Hash,
    /// What stands there is a hash at all.
    pub(super) is_hash: bool,
    /// None when the entry has no bytes that could be hashed.
    pub(super) bytes: Option<Vec<u8>>,
}

impl Verification<'_> {
    /// Takes the suspects in their order, each behind what is believed of the one before it.
    pub(super) fn resolve(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let stored: HashSet<Hash> = suspects.iter().map(|suspect| suspect.stored).collect();
        let of = |seq: i64, previous: Option<Hash>, bytes: Option<&Vec<u8>>| {
            Some(link(self.organization, seq, &previous?, bytes?))
        };
        let mut believed: Option<(i64, Hash)> = None;
        let mut found = Vec::new();
        let mut hashes = Vec::new();
        for (index, suspect) in suspects.iter().enumerate() {
            let seq = suspect.seq;
            let previous =
                believed.filter(|(before, _)| before + 1 == seq).map(|(_, hash)| hash).or(suspect.previous);
            let own = of(seq, previous, suspect.bytes.as_ref());
            let moved = || {
                let others = suspects.iter().filter(|other| other.seq != seq);
                let would_be = others.filter_map(|other| of(seq, previous, other.bytes.as_ref()));
                would_be.into_iter().find(|hash| stored.contains(hash))
            };
            // The next one, or a checkpoint, agrees with what this one's hash should be: the hash was edited.
            let vouched = || {
                let signed = own.filter(|own| {
                    self.deferred.iter().any(|(_, place)| (place.seq, place.hash) == (seq, *own))
                });
                if signed.is_some() {
                    return signed;
                }
                let next = suspects.get(index + 1).filter(|next| next.seq == seq + 1)?;
                own.filter(|_| of(next.seq, own, next.bytes.as_ref()) == Some(next.stored))
            };
            let hash = if own == Some(suspect.stored) && suspect.is_hash {
                suspect.stored
            } else if let Some(hash) = moved() {
                found.push(Finding::Reordered { seq });
                hash
            } else {
                found.push(Finding::Edited { seq });
                vouched().unwrap_or(suspect.stored)
            };
            believed = Some((seq, hash));
            hashes.push((seq, hash));
        }
        for finding in found {
            self.find(finding);
        }
        for (holds, place) in std::mem::take(&mut self.deferred) {
            if !hashes.contains(&(place.seq, place.hash)) {
                self.find(Finding::Remade { after: holds, until: place.seq });
            } else {
                self.look_for_kept(place);
            }
        }
    }
}
