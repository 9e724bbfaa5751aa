use std::collections::BTreeSet;

use model::id::{ExecutionId, RunId};
use proptest::{collection::vec, prelude::*};

use super::*;

const FEW: Keep = Keep {
    over: 6,
    over_for: Duration::from_millis(100),
    refusals: 2,
    refusals_for: Duration::from_millis(50),
    tombstones: 3,
    more: 0,
};

/// An attempt of an execution that was made in this millisecond.
fn key(made: u64, attempt: u32) -> AttemptKey {
    let id = uuid::Uuid::from_u64_pair(made << 16, 0);
    AttemptKey { execution_id: ExecutionId(id), run_id: RunId(id), attempt }
}

fn entry(state: State, now: u64) -> Entry {
    let report = (state != State::Settled).then(proto::Report::default);
    Entry { state: state.into(), at: i64::try_from(now * 1000).unwrap(), report, ..Entry::default() }
}

#[derive(Debug, Clone)]
enum Step {
    /// So long after its execution was made.
    Put(u64, u32, State),
    Pass(u64),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![1 => Just(State::Started), 1 => Just(State::Refused), 4 => Just(State::Settled)];
    prop_oneof![
        8 => (0..90_u64, 1..3_u32, state).prop_map(|(age, attempt, state)| Step::Put(age, attempt, state)),
        2 => (0..60_u64).prop_map(Step::Pass),
        3 => Just(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn what_began_is_known_or_below_the_floor(steps in vec(step(), 1..80)) {
        let (mut now, mut known) = (1000, Known::default());
        let mut ever: BTreeMap<AttemptKey, State> = BTreeMap::new();
        let mut on_disk: BTreeMap<AttemptKey, Entry> = BTreeMap::new();
        let mut was_full = false;
        for step in steps {
            match step {
                Step::Put(age, attempt, state) => {
                    let key = key(now - age, attempt);
                    // As the manager: what is over stays over, and what may be forgotten does not begin.
                    let is_over = matches!(ever.get(&key), Some(State::Settled | State::Refused));
                    if is_over || known.is_forgotten(&key) {
                        continue;
                    }
                    known.put(key, entry(state, now));
                    on_disk.insert(key, entry(state, now));
                    ever.insert(key, state);
                }
                Step::Pass(millis) => now += millis,
                Step::Forget => {
                    was_full |= ever.values().filter(|state| **state != State::Started).count() > FEW.over;
                    for change in known.forget(FEW, i64::try_from(now * 1000).unwrap()) {
                        match change {
                            Change::Put(key, entry) => drop(on_disk.insert(key, *entry)),
                            Change::Forget(key) => drop(on_disk.remove(&key)),
                            Change::Drop(_) => unreachable!(),
                            Change::Fence(_) => unreachable!(),
                        }
                    }
                    prop_assert!(known.over.len() <= FEW.over);
                    let refusals = known.whole().filter(|(_, entry)| entry.state() == State::Refused);
                    prop_assert!(refusals.count() <= FEW.refusals);
                    prop_assert!(!known.is_much(FEW));
                }
            }
            for (key, state) in &ever {
                match known.get(key) {
                    Some(entry) => prop_assert_eq!(entry.state(), *state),
                    None => prop_assert!(*state != State::Started && known.is_forgotten(key)),
                }
            }
            // Without too many of them nothing is refused that may still be ordered.
            prop_assert!(was_full || known.floor().is_none_or(|floor| floor + 100 < now));
        }
        let mut read = Known::new(known.floor());
        on_disk.into_iter().for_each(|(key, entry)| read.put(key, entry));
        prop_assert_eq!(read, known);
    }
}

#[test]
fn the_oldest_executions_go_first() {
    let mut known = Known::default();
    for made in (1..=8).rev() {
        known.put(key(made, 1), entry(State::Settled, 50));
    }
    known.put(key(1, 2), entry(State::Started, 50));
    let forgotten = known.forget(FEW, 50_000);
    assert!(matches!(forgotten[..], [Change::Forget(one), Change::Forget(two)]
        if [one, two] == [key(1, 1), key(2, 1)]));
    assert_eq!(known.floor(), Some(2));
    assert!(known.is_forgotten(&key(2, 7)) && !known.is_forgotten(&key(3, 7)));
    assert!(!known.is_forgotten(&key(1, 2)), "it runs");
}

/// Nobody signs a cancel: who sends any number of them must not make the host forget what it may be asked for.
#[test]
fn tombstones_go_without_a_trace() {
    let mut known = Known::default();
    known.put(key(40, 1), entry(State::Refused, 40));
    for made in 41..=45 {
        known.put(key(made, 1), Entry { tombstone: true, ..entry(State::Refused, made) });
    }
    let dropped = known.forget(FEW, 60_000);
    assert!(matches!(dropped[..], [Change::Drop(one), Change::Drop(two)]
        if [one, two] == [key(41, 1), key(42, 1)]));
    let dropped = known.forget(FEW, 94_000);
    assert!(
        matches!(dropped[..], [Change::Put(bare, _), Change::Drop(one)]
        if [bare, one] == [key(40, 1), key(43, 1)]),
        "{dropped:?}"
    );
    assert_eq!(known.floor(), None);
    assert!(!known.is_forgotten(&key(41, 1)));
    assert_eq!(known.keys().count(), 3);
}

#[test]
fn earlier_attempts_are_those_of_the_same_run() {
    let mut known = Known::default();
    for (key, state) in [
        (key(5, 1), State::Settled),
        (key(5, 2), State::Refused),
        (key(5, 3), State::Started),
        (key(5, 4), State::Settled),
        (key(6, 1), State::Settled),
        (AttemptKey { run_id: key(6, 1).run_id, ..key(5, 1) }, State::Settled),
    ] {
        known.put(key, entry(state, 1));
    }
    let earlier: BTreeSet<u32> = known.earlier(key(5, 4)).map(|(key, _)| key.attempt).collect();
    assert_eq!(earlier, [1, 2, 3].into());
    assert_eq!(known.earlier(key(5, 1)).count(), 0);
}

#[test]
fn later_attempts_are_those_that_were_ordered() {
    let mut known = Known::default();
    assert_eq!(known.latest_after(key(5, 1)), None);
    known.put(key(5, 9), Entry { tombstone: true, ..entry(State::Refused, 1) });
    known.put(key(6, 9), entry(State::Started, 1));
    assert_eq!(known.latest_after(key(5, 1)), None);
    for state in [State::Started, State::Settled, State::Refused] {
        known.put(key(5, 2), entry(state, 1));
        assert_eq!(known.latest_after(key(5, 1)), Some(2), "{state:?}");
    }
    assert_eq!(known.latest_after(key(5, 2)), None);
}

#[test]
fn much_can_be_remembered() {
    assert!(size_of::<(AttemptKey, Over)>() <= 40);
    let days = Keep::ALL.over_for.as_secs() / 86_400;
    let longest = u64::try_from(*limits::START_WITHIN_SECONDS.end()).unwrap() / 86_400;
    assert!(days > longest, "{days}");
}
