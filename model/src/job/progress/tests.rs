use super::{super::parse, *};
use crate::id::JobId;

fn plan(document: &str) -> Plan {
    let job = parse(&format!("name: a\n{document}")).expect("a job");
    Plan::of(&job, JobId(uuid::Uuid::nil()), 1, crate::job::parameters::Values::default()).expect("a plan")
}

/// The states that a host's steps are in, by a letter each: blocked, queued, active, succeeded, failed, skipped, unknown.
fn states(letters: &str) -> Vec<RunState> {
    letters
        .chars()
        .map(|letter| match letter {
            'b' => RunState::Blocked,
            'q' => RunState::Queued,
            'a' => RunState::Active,
            's' => RunState::Succeeded,
            'f' => RunState::Failed,
            '-' => RunState::Skipped,
            'u' => RunState::Unknown,
            other => panic!("no state is called {other}"),
        })
        .collect()
}

/// The states after all that follows.
fn after(plan: &Plan, letters: &str) -> String {
    let mut states = states(letters);
    let gathered = vec![Gathered::default(); states.len()];
    on_host(plan, &mut states, &gathered, true, |_, _| Move::Begin);
    written(&states)
}

fn written(states: &[RunState]) -> String {
    let letter = |state: &RunState| match state {
        RunState::Blocked => 'b',
        RunState::Queued => 'q',
        RunState::Active => 'a',
        RunState::Succeeded => 's',
        RunState::Failed => 'f',
        RunState::Skipped => '-',
        _ => 'u',
    };
    states.iter().map(letter).collect()
}

#[test]
fn steps_follow_what_they_need() {
    let sequence = plan("steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: c, run: x}\n");
    for (before, want) in [
        ("bbb", "qbb"),
        ("abb", "abb"),
        ("sbb", "sqb"),
        ("ssb", "ssq"),
        ("fbb", "f--"),
        ("ubb", "u--"),
        ("sfb", "sf-"),
    ] {
        assert_eq!(after(&sequence, before), want, "{before}");
    }
    let diamond = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: c, run: x, needs: [a]}\n  \
         - {name: d, run: x, needs: [b, c]}\n",
    );
    for (before, want) in
        [("bbbb", "qbbb"), ("sbbb", "sqqb"), ("ssab", "ssab"), ("sssb", "sssq"), ("sfab", "sfa-")]
    {
        assert_eq!(after(&diamond, before), want, "{before}");
    }
    let apart = plan("steps:\n  - {name: a, run: x, needs: []}\n  - {name: b, run: x, needs: []}\n");
    assert_eq!(after(&apart, "bb"), "qq");
    assert_eq!(after(&apart, "fa"), "fa", "what has begun goes on");
}

#[test]
fn failures_mean_what_the_step_says() {
    let goes_on = plan("steps:\n  - {name: a, run: x, on_failure: continue}\n  - {name: b, run: x}\n");
    assert_eq!(after(&goes_on, "fb"), "fq");
    let cleans =
        plan("steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: c, run: x, always: true}\n");
    assert_eq!(after(&cleans, "fbb"), "f-q");
    assert_eq!(after(&cleans, "sab"), "sab");
    let undoes = plan(
        "steps:\n  - {name: a, run: x, on_failure: rollback}\n  - {name: b, run: x}\n  - {name: c, run: x, always: true}\n\
         rollback:\n  - {name: u, run: x}\n  - {name: v, run: x}\n",
    );
    assert_eq!(after(&undoes, "fbbbb"), "f-qbb", "first what runs always");
    assert_eq!(after(&undoes, "f-sbb"), "f-sqb");
    assert_eq!(after(&undoes, "f-ssb"), "f-ssq");
    assert_eq!(after(&undoes, "f-sfb"), "f-sf-");
    assert_eq!(after(&undoes, "sssbb"), "sss--", "nothing to undo");
    assert_eq!(after(&undoes, "sfsbb"), "sfs--", "b only stops");
}

#[test]
fn the_order_by_steps_waits_for_all_hosts() {
    let plan = plan("order: step\nsteps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n");
    let mut gathered = vec![Gathered { open: 1, ..Gathered::default() }, Gathered::default()];
    let mut here = states("sb");
    let begin = |_: usize, _: &[RunState]| Move::Begin;
    assert!(on_host(&plan, &mut here, &gathered, true, begin).is_empty());
    gathered[0].open = 0;
    assert_eq!(on_host(&plan, &mut here, &gathered, true, begin), [(1, Move::Begin)]);
}

#[test]
fn the_controllers_steps_stand_between() {
    let plan = plan("steps:\n  - {name: a, run: x}\n  - {name: rest, wait: 5s}\n  - {name: b, run: x}\n");
    let gathered = |open, succeeded, others| {
        let one = Gathered { open, succeeded, others, ..Gathered::default() };
        vec![one, Gathered::default(), Gathered::default()]
    };
    let states = states("bbb");
    assert_eq!(of_controller(&plan, 1, &states, &gathered(1, 1, 1), false), None);
    assert_eq!(of_controller(&plan, 1, &states, &gathered(0, 1, 1), false), Some(Move::Begin));
    assert_eq!(
        of_controller(&plan, 1, &states, &gathered(0, 0, 2), false),
        Some(Move::Skip(Why::NoHostLeft))
    );
    assert_eq!(after(&plan, "sbb"), "sbb");
    assert_eq!(after(&plan, "ssb"), "ssq");
}

/// The states after an abort and all that follows from it; `tried` has the places that were offered before.
fn after_abort(plan: &Plan, letters: &str, tried: &[usize]) -> String {
    let mut here = states(letters);
    for place in aborted_on_host(plan, &here, |place| tried.contains(&place)) {
        here[place] = RunState::Skipped;
    }
    let gathered = vec![Gathered::default(); here.len()];
    on_host(plan, &mut here, &gathered, true, |_, _| Move::Begin);
    written(&here)
}

#[test]
fn after_an_abort_nothing_begins_that_need_not() {
    let sequence = plan("steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: c, run: x}\n");
    assert_eq!(after_abort(&sequence, "abb", &[]), "a--", "what runs goes on");
    assert_eq!(after_abort(&sequence, "sqb", &[]), "s--", "nobody was offered it");
    assert_eq!(after_abort(&sequence, "sqb", &[1]), "sq-", "it is between two tries");
    assert_eq!(after_abort(&sequence, "sss", &[]), "sss");
    let cleans = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: c, run: x, always: true}\n\
         rollback:\n  - {name: u, run: x}\n",
    );
    assert_eq!(after_abort(&cleans, "abbb", &[]), "a-b-", "first what runs has to end");
    assert_eq!(after_abort(&cleans, "f-b-", &[]), "f-q-");
    assert_eq!(after_abort(&cleans, "s-b-", &[]), "s-q-");
    assert_eq!(after_abort(&cleans, "s-q-", &[]), "s-q-", "what runs always is left in the queue");
    let undoes = plan(
        "steps:\n  - {name: a, run: x, on_failure: rollback}\n  - {name: b, run: x}\n\
         rollback:\n  - {name: u, run: x}\n  - {name: v, run: x}\n",
    );
    assert_eq!(after_abort(&undoes, "abbb", &[]), "a---", "it does not begin to undo");
    assert_eq!(after_abort(&undoes, "f-bb", &[]), "f---");
    assert_eq!(after_abort(&undoes, "f-qb", &[]), "f---", "nobody was offered it");
    assert_eq!(after_abort(&undoes, "f-ab", &[]), "f-ab", "it is under way");
    assert_eq!(after_abort(&undoes, "f-qb", &[2]), "f-qb");
    assert_eq!(after_abort(&undoes, "f-sb", &[]), "f-sq");
    assert_eq!(after_abort(&undoes, "f-sq", &[]), "f-sq");
}

#[test]
fn after_an_abort_the_controller_asks_nobody() {
    let plan = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: ask, approval: {}}\n  - {name: rest, wait: 5s, always: true, needs: [a]}\n  \
         - {name: send, http: {url: 'https://x'}, needs: [a]}\n  \
         - {name: tell, http: {url: 'https://x'}, needs: [a], always: true}\n",
    );
    let ended = vec![Gathered { others: 1, ..Gathered::default() }; 5];
    let open = vec![Gathered { open: 1, ..Gathered::default() }; 5];
    let of = |place, gathered: &[Gathered]| of_controller(&plan, place, &states("sbbbb"), gathered, true);
    for place in 1..4 {
        assert_eq!(of(place, &open), Some(Move::Skip(Why::Aborted)), "{place}");
    }
    assert_eq!(of(4, &open), None);
    let sequence = self::plan(
        "steps:\n  - {name: a, run: x}\n  - {name: b, run: x}\n  - {name: tell, http: {url: 'https://x'}, always: true}\n",
    );
    let mut behind = vec![Gathered { others: 1, ..Gathered::default() }; 3];
    assert_eq!(of_controller(&sequence, 2, &states("--b"), &behind, true), Some(Move::Begin));
    behind[0].open = 1;
    let told = of_controller(&sequence, 2, &states("--b"), &behind, true);
    assert_eq!(told, None, "the second step is skipped while the first still runs somewhere");
    assert_eq!(of(4, &ended), Some(Move::Begin));
}

#[test]
fn what_undoes_does_not_wait_for_the_controller() {
    let plan = plan(
        "rollout: {batches: [1]}\nsteps:\n  - {name: a, run: x, on_failure: rollback}\n  - {name: rest, wait: 1m}\n\
         rollback:\n  - {name: u, run: x}\n",
    );
    assert_eq!(
        after(&plan, "sbb"),
        "sb-",
        "else the next batch would wait for the wait, and that for the batch"
    );
    assert_eq!(after(&plan, "fbb"), "fbq");
}

fn hosts(text: &str) -> Vec<Host> {
    text.split_whitespace()
        .map(|host| {
            let (batch, state) = host.split_at(1);
            let state = match state {
                "w" => HostState::Waiting,
                "a" => HostState::Active,
                "s" => HostState::Succeeded,
                "f" => HostState::Failed,
                "-" => HostState::Skipped,
                other => panic!("no state is called {other}"),
            };
            Host { batch: batch.parse().expect("a number"), state }
        })
        .collect()
}

#[test]
fn hosts_take_turns() {
    let now = Timestamp::UNIX_EPOCH;
    let plan = |rollout: &str| plan(&format!("rollout: {{{rollout}}}\nsteps:\n  - {{name: a, run: x}}\n"));
    let next = |rollout: &str, at: &str| {
        let turn = turn(&plan(rollout), Standing::default(), &hosts(at), now);
        (turn.begin, turn.skip, turn.standing.is_stopped)
    };
    assert_eq!(next("", "0w 0w 0a"), (vec![0, 1], vec![], false));
    assert_eq!(next("batches: [1]", "0w 1w 1w"), (vec![0], vec![], false));
    assert_eq!(next("batches: [1]", "0a 1w 1w"), (vec![], vec![], false));
    assert_eq!(next("batches: [1]", "0f 1w 1w"), (vec![1, 2], vec![], false), "any number may fail");
    assert_eq!(next("max_failures: 0", "0f 0a 0w"), (vec![], vec![2], true));
    assert_eq!(next("max_failures: 1", "0f 0a 0w"), (vec![2], vec![], false));
    assert_eq!(next("max_failures: 34%", "0f 0f 0w"), (vec![], vec![2], true));
    assert_eq!(next("max_parallel: 2", "0a 0s 0w 0w"), (vec![2], vec![], false));
    assert_eq!(next("max_parallel: 1", "0a 0w"), (vec![], vec![], false));
}

const PROBED: &str = "rollout: {canary: {hosts: 1, soak: 60s, probe: {run: ok, on_failure: rollback}}}\nsteps:\n  \
                      - {name: a, run: x}\n  - {name: b, run: x, needs: []}\nrollback:\n  - {name: u, run: x}\n";

#[test]
fn a_host_where_something_was_left_out_has_not_succeeded() {
    let plan = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: ask, approval: {}}\n  - {name: b, run: x}\n  \
         - {name: c, run: x, always: true}\nrollback:\n  - {name: u, run: x}\n",
    );
    for (letters, left_out, want) in [
        ("ss---", &[][..], HostState::Succeeded),
        ("-f---", &[], HostState::Succeeded),
        ("sf-s-", &[2], HostState::Failed),
        ("sf---", &[2, 3], HostState::Failed),
        ("-f---", &[0, 2, 3], HostState::Skipped),
        ("ssss-", &[4], HostState::Succeeded),
        ("sf-a-", &[2], HostState::Active),
        ("fs-s-", &[2], HostState::Failed),
    ] {
        let now = host_state(&plan, &states(letters), |place| left_out.contains(&place));
        assert_eq!(now, want, "{letters} {left_out:?}");
    }
}

#[test]
fn the_probe_comes_behind_all_steps_and_the_soak() {
    let plan = plan(PROBED);
    let shape: Vec<_> = plan.steps.iter().map(|step| (step.name.as_str(), step.needs.as_slice())).collect();
    assert_eq!(shape, [("a", &[][..]), ("b", &[]), ("probe", &[0, 1]), ("u", &[])]);
    assert!(plan.is_on(2, 0) && !plan.is_on(2, 1) && plan.is_on(3, 1));
    for (before, soaked, unsoaked) in [
        ("sabb", "sabb", "sabb"),
        ("ssbb", "ssqb", "ssbb"),
        ("sfbb", "sf--", "sf--"),
        ("ssfb", "ssfq", "ssfq"),
        ("sssb", "sss-", "sss-"),
        // Of a host that is none of the canary.
        ("ss-b", "ss--", "ss--"),
    ] {
        assert_eq!(after(&plan, before), soaked, "{before}");
        let (mut states, gathered) = (states(before), vec![Gathered::default(); 4]);
        on_host(&plan, &mut states, &gathered, false, |_, _| Move::Begin);
        assert_eq!(written(&states), unsoaked, "{before}");
    }
    assert_eq!(
        host_state(&plan, &states("ssb-"), |_| false),
        HostState::Active,
        "a host is not over before its probe"
    );
    assert_eq!(host_state(&plan, &states("ssfs"), |_| false), HostState::Failed);
    assert_eq!(host_state(&plan, &states("ss--"), |_| false), HostState::Succeeded);
}

#[test]
fn the_soak_begins_with_the_last_end() {
    let plan = plan(PROBED);
    let at = |second| Some(Timestamp::from_second(second).expect("a time"));
    assert_eq!(soaked_at(&plan, [(0, at(5)), (1, None), (2, None), (3, None)]), None);
    assert_eq!(soaked_at(&plan, [(0, at(5)), (1, at(3)), (2, None), (3, None)]), at(65));
    assert_eq!(soaked_at(&plan, []), Timestamp::MIN.checked_add(jiff::SignedDuration::from_secs(60)).ok());
}

#[test]
fn a_canary_that_fails_stops_it() {
    let now = Timestamp::UNIX_EPOCH;
    let next = |rollout: &str, at: &str| {
        let plan = plan(&format!("rollout: {{{rollout}}}\nsteps:\n  - {{name: a, run: x}}\n"));
        let turn = turn(&plan, Standing::default(), &hosts(at), now);
        (turn.begin, turn.skip, turn.standing.is_stopped)
    };
    let canary = "canary: {hosts: 2}, max_failures: 50%";
    assert_eq!(next(canary, "0w 0w 1w"), (vec![0, 1], vec![], false));
    assert_eq!(next(canary, "0s 0a 1w"), (vec![], vec![], false));
    assert_eq!(next(canary, "0s 0s 1w"), (vec![2], vec![], false));
    assert_eq!(next(canary, "0f 0a 1w"), (vec![], vec![2], true), "whatever max_failures says");
    assert_eq!(next(canary, "0s 0- 1w"), (vec![2], vec![], false));
    assert_eq!(next(canary, "0- 0- 1w 1w"), (vec![], vec![2, 3], true), "it was tried on none");
    assert_eq!(next(canary, "0s 0s 1f 1w"), (vec![3], vec![], false), "of the others some may fail");
    assert_eq!(next("max_failures: 50%", "0f 0w 1w"), (vec![1], vec![], false));
}

#[test]
fn without_a_probe_the_soak_holds_the_others_back() {
    let begun = Timestamp::UNIX_EPOCH;
    let until = |rollout: &str, standing: Standing, at: &str| {
        let plan = plan(&format!("rollout: {{{rollout}}}\nsteps:\n  - {{name: a, run: x}}\n"));
        turn(&plan, standing, &hosts(at), begun).standing.pause_until.map(Timestamp::as_second)
    };
    let first = Standing::default();
    assert_eq!(until("canary: {hosts: 1, soak: 60s}", first, "0s 1w"), Some(60));
    assert_eq!(until("canary: {hosts: 1, soak: 60s}, pause: 5s", first, "0s 1w"), Some(60), "the longer one");
    assert_eq!(
        until("canary: {hosts: 1, soak: 60s}, pause: 5s", Standing { batch: 1, ..first }, "0s 1s 2w"),
        Some(5)
    );
    assert_eq!(until("canary: {hosts: 1, soak: 60s, probe: {run: x}}", first, "0s 1w"), None);
    assert_eq!(until("canary: {hosts: 1, soak: 60s, probe: {run: x}}, pause: 5s", first, "0s 1w"), Some(5));
}

#[test]
fn a_pause_stands_between_two_batches() {
    let plan = plan("rollout: {batches: [1], pause: 60s}\nsteps:\n  - {name: a, run: x}\n");
    let begun = Timestamp::UNIX_EPOCH;
    let first = turn(&plan, Standing::default(), &hosts("0w 1w"), begun);
    assert_eq!(first.begin, [0], "none before the first");
    let paused = turn(&plan, first.standing, &hosts("0s 1w"), begun);
    assert_eq!((paused.begin.as_slice(), paused.standing.batch), (&[][..], 1));
    let until = paused.standing.pause_until.expect("a pause");
    assert_eq!(until.as_second(), 60);
    let early = turn(&plan, paused.standing, &hosts("0s 1w"), begun + jiff::SignedDuration::from_secs(59));
    assert!(early.begin.is_empty());
    let over = turn(&plan, paused.standing, &hosts("0s 1w"), until);
    assert_eq!((over.begin.as_slice(), over.standing.pause_until), (&[1][..], None));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Five hundred hosts, some of which fail, in any order of their ends: when one more has failed than may, nobody begins
    /// any more; until then everybody does; and no more are at work than may be, of one batch. When a host of the canary fails
    /// nobody else begins at all.
    #[test]
    fn a_rollout_stops_exactly_at_its_budget(
        failing in proptest::collection::vec(proptest::bool::weighted(0.05), 500),
        batches in proptest::collection::vec(1_u8..=100, 0..5),
        max_parallel in proptest::option::of(1_usize..60),
        budget in proptest::option::of(0_usize..30),
        canary in proptest::option::of(1_usize..20),
        order in proptest::collection::vec(0_usize..1000, 500),
    ) {
        let batches: Vec<String> = batches.iter().map(|share| format!("{share}%")).collect();
        let mut rollout = vec![];
        if !batches.is_empty() {
            rollout.push(format!("batches: [{}]", batches.join(", ")));
        }
        rollout.extend(max_parallel.map(|most| format!("max_parallel: {most}")));
        rollout.extend(budget.map(|most| format!("max_failures: {most}")));
        rollout.extend(canary.map(|hosts| format!("canary: {{hosts: {hosts}}}")));
        let plan = plan(&format!("rollout: {{{}}}\nsteps: [{{name: a, run: x}}]\n", rollout.join(", ")));
        let of = plan.rollout.batches_of(failing.len());
        let mut hosts: Vec<Host> = of.iter().map(|batch| Host { batch: *batch, state: HostState::Waiting }).collect();
        let (mut standing, mut starts, mut failed, mut tick) = (Standing::default(), 0, 0, 0);
        let mut is_bad_canary = false;
        loop {
            let next = turn(&plan, standing, &hosts, Timestamp::UNIX_EPOCH);
            standing = next.standing;
            let is_over = is_bad_canary || budget.is_some_and(|most| failed > most);
            proptest::prop_assert!(!is_over || next.begin.is_empty(), "{} begin after the stop", next.begin.len());
            proptest::prop_assert_eq!(is_over, standing.is_stopped);
            for place in &next.begin {
                proptest::prop_assert_eq!(hosts[*place].state, HostState::Waiting);
                hosts[*place].state = HostState::Active;
                starts += 1;
            }
            for place in &next.skip {
                hosts[*place].state = HostState::Skipped;
            }
            let active: Vec<usize> =
                (0..hosts.len()).filter(|place| hosts[*place].state == HostState::Active).collect();
            proptest::prop_assert!(max_parallel.is_none_or(|most| active.len() <= most));
            let one_batch = active.windows(2).all(|pair| hosts[pair[0]].batch == hosts[pair[1]].batch);
            proptest::prop_assert!(one_batch, "two batches are at work");
            let Some(place) = active.get(order[tick % order.len()] % active.len().max(1)).copied() else { break };
            tick += 1;
            failed += usize::from(failing[place]);
            is_bad_canary |= failing[place] && canary.is_some_and(|hosts| place < hosts);
            hosts[place].state = if failing[place] { HostState::Failed } else { HostState::Succeeded };
        }
        let stopped = is_bad_canary || budget.is_some_and(|most| failed > most);
        proptest::prop_assert!(!is_bad_canary || Some(starts) <= canary, "{} began", starts);
        proptest::prop_assert_eq!(starts == hosts.len() || stopped, true, "{} of {} began", starts, hosts.len());
        proptest::prop_assert!(hosts.iter().all(|host| host.state.has_ended()));
    }
}

#[test]
fn what_runs_always_waits_for_no_answer_that_it_does_not_ask_for() {
    let chain = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: ok, approval: {}}\n  - {name: b, run: x}\n  \
         - {name: c, run: x, always: true}\n",
    );
    assert_eq!(after(&chain, "fbbb"), "fb-q", "b never comes, and with it the approval");
    assert_eq!(after(&chain, "sbbb"), "sbbb", "it may still come");
    let beside = plan(
        "steps:\n  - {name: a, run: x}\n  - {name: ok, wait: 5m, needs: []}\n  - {name: b, run: x, needs: [a, ok]}\n  \
         - {name: c, run: x, needs: [b], always: true}\n",
    );
    assert_eq!(after(&beside, "fabb"), "fa-q");
}
