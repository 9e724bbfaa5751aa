use proptest::prelude::*;

use super::*;

#[test]
fn the_first_written_is_named() {
    let timeline = Timeline::of([(10..20, 2), (15..30, 1), (30..40, 1), (50..60, 0)]);
    for (range, want) in [
        (0..=9, None),
        (9..=10, Some(2)),
        (14..=14, Some(2)),
        (15..=15, Some(1)),
        (39..=39, Some(1)),
        (40..=49, None),
        (10..=50, Some(0)),
        (60..=99, None),
    ] {
        assert_eq!(timeline.first(&range), want, "{range:?}");
    }
    assert_eq!(timeline.held, [10..40, 50..60], "what touches is one");
    assert_eq!([9, 10, 39, 40, 60].map(|at| timeline.leaves(at)), [None, Some(40), Some(40), None, None]);
    assert_eq!([9, 10, 49, 50].map(|at| timeline.enters(at)), [Some(10), Some(50), Some(50), None]);
}

#[test]
fn a_week_goes_round() {
    let hour = 3600;
    // Sunday 22:00 to Monday 06:00, and Monday 06:00 to 07:00.
    let weekly = Weekly::of([(6 * DAY + 22 * hour..WEEK + 6 * hour, 1), (6 * hour..7 * hour, 0)]);
    for (wall, first, leaves) in [
        (MONDAY - 1, Some(1), Some(MONDAY + 7 * hour)),
        (MONDAY, Some(1), Some(MONDAY + 7 * hour)),
        (MONDAY + 6 * hour, Some(0), Some(MONDAY + 7 * hour)),
        (MONDAY + 7 * hour, None, None),
        (MONDAY - WEEK, Some(1), Some(MONDAY - WEEK + 7 * hour)),
    ] {
        assert_eq!(weekly.first(&(wall..=wall)), first, "{wall}");
        assert_eq!(weekly.leaves(wall), leaves, "{wall}");
    }
    assert_eq!(weekly.enters(MONDAY + 7 * hour), Some(MONDAY + 6 * DAY + 22 * hour));
    assert_eq!(weekly.first(&(MONDAY + 7 * hour..=MONDAY + WEEK)), Some(1), "a range may go round");
    assert_eq!(Weekly::of([(0..DAY, 0), (DAY..WEEK, 1)]).leaves(5), Some(i64::MAX));
    assert_eq!(Weekly::of([(0..DAY, 0)]).enters(MONDAY), Some(MONDAY + WEEK));
    assert_eq!(Weekly::default().enters(0), None);
}

fn spans() -> impl Strategy<Value = Vec<(Range<i64>, usize)>> {
    let span = (0_i64..60, 1_i64..20).prop_map(|(from, length)| from..from + length);
    proptest::collection::vec(span, 0..12).prop_map(|spans| spans.into_iter().zip(0..).collect())
}

proptest! {
    #[test]
    fn as_a_scan(spans in spans(), from in -5_i64..90, length in 0_i64..10) {
        let timeline = Timeline::of(spans.clone());
        let holds = |at: i64| spans.iter().any(|(span, _)| span.contains(&at));
        let range = from..=from + length;
        let within = spans.iter().filter(|(span, _)| span.start <= *range.end() && *range.start() < span.end);
        prop_assert_eq!(timeline.first(&range), within.map(|(_, entry)| *entry).min());
        let leaves = holds(from).then(|| (from..100).find(|at| !holds(*at)).unwrap());
        prop_assert_eq!(timeline.leaves(from), leaves);
        prop_assert_eq!(timeline.enters(from), (from + 1..100).find(|at| holds(*at) && !holds(at - 1)));
    }
}
