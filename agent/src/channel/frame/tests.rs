//! Whoever took over the link can write anything. Whatever it is, the executor's parser does not panic, takes no more
//! room than a message may have, and never finds a message that was not written.

use model::id::{ExecutionId, RunId};
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::*;
use crate::{
    channel::wire::{self, Ask, FromLink, Heard, Hello, Key},
    messages::AttemptKey,
};

/// What a stream holds: the frames up to what is wrong in it, read in pieces of these sizes.
fn read(bytes: &[u8], pieces: &[usize]) -> (Vec<Frame<FromLink>>, Option<FrameError>) {
    let mut parser = Parser::<FromLink>::default();
    let (mut frames, mut rest) = (Vec::new(), bytes);
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    loop {
        let room = parser.room();
        assert!(!room.is_empty(), "a read of nothing would be taken for the end");
        let taken = room.len().min(rest.len()).min(pieces.next().unwrap_or(1).max(1));
        if taken == 0 {
            return (frames, (!parser.is_between()).then_some(FrameError::CutOff));
        }
        room[..taken].copy_from_slice(&rest[..taken]);
        rest = &rest[taken..];
        match parser.filled(taken) {
            Ok(frame) => frames.extend(frame),
            Err(error) => return (frames, Some(error)),
        }
        let most = FromLink::Order.limit();
        assert!(parser.reserved() <= most, "{} bytes are taken for one message", parser.reserved());
    }
}

fn key() -> impl Strategy<Value = Key> {
    (any::<u128>(), any::<u128>(), 1..u32::MAX).prop_map(|(execution, run, attempt)| {
        Key::from(AttemptKey {
            execution_id: ExecutionId(Uuid::from_u128(execution)),
            run_id: RunId(Uuid::from_u128(run)),
            attempt,
        })
    })
}

/// A message as the real link writes it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let order = (vec(any::<u8>(), 0..2000), vec(any::<u8>(), 0..100)).prop_map(|(payload, signature)| {
        let envelope =
            proto::Envelope { kind: "work-order".to_owned(), payload, signature, ..Default::default() };
        encode(FromLink::Order, &envelope).unwrap()
    });
    prop_oneof![
        order,
        vec(".{0,40}", 0..4).prop_map(|missing| encode(FromLink::Hello, &Hello { missing }).unwrap()),
        key().prop_map(|key| encode(FromLink::Cancel, &key).unwrap()),
        key().prop_map(|key| encode(FromLink::Settled, &key).unwrap()),
        any::<u64>().prop_map(|number| encode(FromLink::Ask, &Ask { number }).unwrap()),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read_in_pieces_of_any_size(
        messages in vec(message(), 0..10),
        pieces in vec(1..300_usize, 0..50),
    ) {
        let (frames, error) = read(&messages.concat(), &pieces);
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(frames.len(), messages.len());
        for (frame, written) in frames.iter().zip(&messages) {
            prop_assert_eq!(&frame.body[..], &written[HEAD_BYTES..]);
            prop_assert!(wire::heard(frame).is_ok());
        }
    }

    #[test]
    fn noise_is_no_message(bytes in vec(any::<u8>(), 0..4000), pieces in vec(1..300_usize, 0..50)) {
        let (frames, _) = read(&bytes, &pieces);
        for frame in frames {
            prop_assert!(frame.body.len() <= frame.kind.limit());
            let _ = wire::heard(&frame);
        }
    }

    #[test]
    fn damage_is_noticed_or_makes_another_message_and_nothing_worse(
        messages in vec(message(), 1..5),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        cut in any::<prop::sample::Index>(),
        pieces in vec(1..300_usize, 0..50),
    ) {
        let mut bytes = messages.concat();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let (frames, _) = read(&bytes, &pieces);
        for frame in frames {
            prop_assert!(frame.body.len() <= frame.kind.limit());
            if let Ok(Heard::Cancel(key) | Heard::Settled(key)) = wire::heard(&frame) {
                prop_assert!(key.attempt > 0);
            }
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_cut_off(message in message(), cut in any::<prop::sample::Index>()) {
        let at = 1 + cut.index(message.len() - 1);
        let (frames, error) = read(&message[..at], &[]);
        prop_assert_eq!(frames.len(), usize::from(at == message.len()));
        prop_assert_eq!(matches!(error, Some(FrameError::CutOff)), at < message.len());
    }
}

#[test]
fn no_kind_takes_more_than_its_limit() {
    for kind in [FromLink::Hello, FromLink::Order, FromLink::Cancel, FromLink::Settled, FromLink::Ask] {
        let head = |length: usize| {
            let length = u32::try_from(length).unwrap().to_le_bytes();
            [&[VERSION, kind.number(), 0, 0], &length[..]].concat()
        };
        let (_, error) = read(&head(kind.limit() + 1), &[]);
        assert!(matches!(error, Some(FrameError::TooLong { .. })), "{kind:?}: {error:?}");
        let (_, error) = read(&head(kind.limit()), &[]);
        assert!(matches!(error, Some(FrameError::CutOff)), "{kind:?}: {error:?}");
    }
    let long = Hello { missing: vec!["x".repeat(FromLink::Hello.limit())] };
    assert!(matches!(encode(FromLink::Hello, &long), Err(FrameError::TooLong { .. })));
}

#[test]
fn foreign_heads_are_refused() {
    for (head, wrong) in [
        ([VERSION + 1, 1, 0, 0, 0, 0, 0, 0], "version"),
        ([VERSION, 0, 0, 0, 0, 0, 0, 0], "kind"),
        ([VERSION, 6, 0, 0, 0, 0, 0, 0], "kind"),
        ([VERSION, 1, 1, 0, 0, 0, 0, 0], "head"),
    ] {
        let error = read(&head, &[]).1.unwrap();
        assert!(error.to_string().contains(wrong), "{error}");
    }
    // An attempt has a number, and its ids have sixteen bytes.
    for key in [Key { attempt: 0, ..some_key() }, Key { run_id: vec![1; 15], ..some_key() }, Key::default()] {
        let (frames, _) = read(&encode(FromLink::Cancel, &key).unwrap(), &[]);
        assert!(matches!(wire::heard(&frames[0]), Err(FrameError::Key { .. })), "{key:?}");
    }
}

fn some_key() -> Key {
    Key { execution_id: vec![1; 16], run_id: vec![2; 16], attempt: 3 }
}
