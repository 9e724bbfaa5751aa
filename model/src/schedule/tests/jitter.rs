use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::schedule::jitter;

const ID: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0001);

/// As the hash of these 24 bytes, computed elsewhere, says.
#[test]
fn it_is_the_same_everywhere() {
    let due = Timestamp::from_second(1_800_000_000).expect("in range");
    assert_eq!(jitter(ID, due, Duration::from_secs(600)), Duration::from_micros(556_612_933));
    assert_eq!(jitter(ID, due, Duration::ZERO), Duration::ZERO);
    assert!(jitter(ID, due, Duration::MAX) < Duration::MAX);
}

#[test]
fn it_spreads_evenly_within_its_width() {
    let width = Duration::from_secs(60);
    let mut tenths = [0; 10];
    for minute in 0..10_000 {
        let due = Timestamp::from_second(1_800_000_000 + minute * 60).expect("in range");
        let jitter = jitter(ID, due, width);
        assert!(jitter < width);
        tenths[usize::try_from(jitter.as_micros() / 6_000_000).expect("a digit")] += 1;
    }
    assert!(tenths.iter().all(|count| (900..1100).contains(count)), "{tenths:?}");
}
