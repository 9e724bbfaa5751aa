use super::super::parse;

fn wrong(document: &str) -> String {
    parse(document).expect_err(document).to_string()
}

#[test]
fn a_step_does_one_thing() {
    for (step, words) in [
        ("{name: one}", "one of run"),
        ("{name: one, run: a, argv: [b]}", "one too many"),
        ("{name: one, run: ''}", "is empty"),
        ("{name: one, wait: 5s, user: root}", "user is about a host"),
        ("{name: one, run: a, cwd: tmp}", "cwd is not an absolute path"),
        ("{name: One, run: a}", "name"),
    ] {
        let text = wrong(&format!("name: a\nsteps: [{step}]\n"));
        assert!(text.contains(words), "{step}: {text}");
    }
}

#[test]
fn too_many_steps_are_named() {
    let steps: Vec<String> = (0..10_000).map(|n| format!("  - {{name: s{n}, run: x}}\n")).collect();
    let text = wrong(&format!("name: a\nsteps:\n{}", steps.concat()));
    assert!(text.contains("STEPS") || text.contains("budget"), "{text}");
}

#[test]
fn a_matrix_makes_no_step_that_is_there_already() {
    let job =
        |steps: &str| format!("name: a\nsteps:\n  - {{name: a, run: x, matrix: {{n: [1, 2]}}}}\n{steps}");
    let clash = wrong(&job("  - {name: a.2, run: y}\n"));
    assert!(clash.starts_with("line 3,"), "{clash}");
    assert!(clash.contains("steps[0].matrix makes a step 'a.2', and another one has that name"), "{clash}");
    parse(&job("  - {name: a.3, run: y}\n")).expect("another name");
    parse(&job("  - {name: a.1, run: y, matrix: {n: [1]}}\n")).expect("it makes a.1.1");
}

#[test]
fn what_undoes_stands_apart() {
    let head = "name: a\nsteps:\n  - {name: one, run: x, on_failure: rollback}\n";
    assert!(wrong(head).contains("no steps under rollback"));
    parse(&format!("{head}rollback:\n  - {{name: undo, run: y}}\n")).expect("a job");
    assert!(wrong(&format!("{head}rollback:\n  - {{name: undo, wait: 5s}}\n")).contains("controller"));
    assert!(wrong(&format!("{head}rollback:\n  - {{name: one, run: y}}\n")).contains("another step"));
}

#[test]
fn batches_go_around_the_controllers_steps() {
    let job = |order: &str| {
        format!(
            "name: a\n{order}rollout: {{batches: [1, 100%]}}\nsteps:\n  - {{name: one, run: x}}\n  \
             - {{name: rest, wait: 5s}}\n  - {{name: two, run: y}}\n"
        )
    };
    assert!(wrong(&job("")).contains("between steps on hosts"));
    assert!(wrong(&job("order: step\n")).contains("order host"));
    // Who waits for all would wait for those that have no turn yet.
    let few = |text: &str| text.replace("batches: [1, 100%]", "max_parallel: 2");
    assert!(wrong(&few(&job(""))).contains("between steps on hosts"));
    assert!(wrong(&few(&job("order: step\n"))).contains("rollout.max_parallel"));
    parse("name: a\nrollout: {batches: [1]}\nsteps:\n  - {name: rest, wait: 5s}\n  - {name: one, run: x}\n")
        .expect("before");
    parse("name: a\nrollout: {batches: [1]}\nsteps:\n  - {name: one, run: x}\n  - {name: rest, wait: 5s}\n")
        .expect("behind");
}

#[test]
fn a_canary_is_checked() {
    let job = |canary: &str, steps: &str| {
        format!("name: a\nrollout:\n  canary: {{{canary}}}\nsteps:\n  - {{name: one, run: x}}\n{steps}")
    };
    for (canary, words) in [
        ("soak: 5s", "missing field `hosts`"),
        ("hosts: 0", "rollout.canary.hosts is 0"),
        ("hosts: 0%", "rollout.canary.hosts is 0"),
        ("hosts: 1, soak: 800h", "rollout.canary.soak"),
        ("hosts: 1, probe: {}", "rollout.canary.probe.run is missing"),
        ("hosts: 1, probe: {run: x, name: y}", "rollout.canary.probe.name is not for the probe"),
        ("hosts: 1, probe: {wait: 5s}", "rollout.canary.probe.wait is the controller's own"),
        ("hosts: 1, probe: {run: x, needs: [one]}", "rollout.canary.probe.needs is not for the probe"),
        ("hosts: 1, probe: {run: x, always: true}", "rollout.canary.probe.always is not for the probe"),
        ("hosts: 1, probe: {run: x, outputs: [a]}", "rollout.canary.probe.outputs is not for the probe"),
        ("hosts: 1, probe: {run: x, on_failure: continue}", "a probe that may fail"),
        ("hosts: 1, probe: {run: x, on_failure: rollback}", "no steps under rollback"),
        ("hosts: 1, probe: {run: x, cwd: tmp}", "rollout.canary.probe.cwd is not an absolute path"),
        (
            "hosts: 1, probe: {run: 'x {{ params.no }}', template: true}",
            "rollout.canary.probe.run uses 'params.no'",
        ),
        ("hosts: 1, probe: {run: x, if: steps.two.exit_code == 0}", "steps.two"),
    ] {
        let text = wrong(&job(canary, ""));
        assert!(text.contains(words), "{canary}: {text}");
    }
    let at = parse(&job("hosts: 1, probe: {run: x, needs: [one]}", "")).expect_err("no job");
    assert_eq!((at.line, at.column), (3, 45), "{at}");
    let named = wrong(&job("hosts: 1, probe: {run: x}", "  - {name: probe, run: y}\n"));
    assert!(
        named.contains("steps[1].name is 'probe', and that is the step of rollout.canary.probe"),
        "{named}"
    );
    parse(&job("hosts: 1", "  - {name: probe, run: y}\n")).expect("the name is free without one");
    let joint = wrong(&job("hosts: 1", "  - {name: rest, wait: 5s}\n  - {name: two, run: y}\n"));
    assert!(joint.contains("with a canary"), "{joint}");
    let by_step = wrong(&job("hosts: 1", "").replace("rollout:", "order: step\nrollout:"));
    assert!(by_step.contains("rollout.canary is for the order host"), "{by_step}");
    let mut whole = parse(&job(
        "hosts: 5%, soak: 10m, probe: {script: {use: check@2}, if: steps.one.exit_code == 0}",
        "rollback:\n  - {name: undo, run: y, if: steps.probe.state == 'failed'}\n",
    ))
    .expect("a job");
    assert_eq!(
        whole.saved_scripts().next().map(|(path, _)| path).as_deref(),
        Some("rollout.canary.probe.script.use")
    );
    let text = serde_json::to_string(&whole).expect("JSON");
    assert_eq!(parse(&text).expect("it reads back"), whole);
}

#[test]
fn targets_are_chosen_in_one_way() {
    let job = |targets: &str| format!("name: a\ntargets: {targets}\nsteps: [{{name: one, run: x}}]\n");
    for (targets, words) in [
        ("{}", "names no hosts"),
        ("{all: true, hosts: [a]}", "more than one"),
        ("{selector: 'env='}", "targets.selector"),
        ("{group: web, all: true}", "more than one"),
        ("{group: Web}", "targets.group"),
        ("{all: true, max_targets: 0}", "is 0"),
    ] {
        let text = wrong(&job(targets));
        assert!(text.contains(words), "{targets}: {text}");
    }
    parse(&job("{selector: env=prod, exclude: role=db, limit: 3, allow_empty: true}")).expect("a job");
}

#[test]
fn the_controllers_own_steps_see_hosts_together() {
    let job = |step: &str| {
        let head = "name: a\nsteps:\n  - {name: one, run: x, outputs: [n]}\n  - {name: ask, http: {url: 'https://x.example/'}}\n";
        format!("{head}  - {{name: last, {step}}}\n")
    };
    let own = "wait: 1s, if: ";
    for condition in [
        "'steps.one.failed == 0'",
        "'steps.one.state == \"failed\"'",
        "'(steps.one.hosts | length) > 3'",
        "'steps.ask.outputs.status == 200'",
    ] {
        parse(&job(&format!("{own}{condition}"))).expect(condition);
    }
    for condition in ["'steps.one.outputs.n == 1'", "'steps.one.exit_code == 0'", "'steps.ask.failed == 0'"] {
        let text = wrong(&job(&format!("{own}{condition}")));
        assert!(text.contains("not known"), "{condition}: {text}");
    }
    // On a host it is that host's.
    parse(&job("run: x, if: 'steps.one.outputs.n == 1'")).expect("a job");
    let text = wrong(&job("run: x, if: 'steps.one.failed == 0'"));
    assert!(text.contains("not known"), "{text}");
}

#[test]
fn a_job_does_not_start_itself() {
    let text = wrong("name: a\nsteps:\n  - {name: one, job: {name: a}}\n");
    assert!(text.contains("steps[0].job.name") && text.contains("never end"), "{text}");
    let text = wrong("name: a\nsteps:\n  - {name: one, job: {name: b}, run: x}\n");
    assert!(text.contains("run and job"), "{text}");
    let text = wrong(
        "name: a\nsteps:\n  - {name: one, job: {name: b, parameters: {x: '{{ params.y }}'}}, template: true}\n",
    );
    assert!(text.contains("steps[0].job.parameters.x"), "{text}");
    parse("name: a\nsteps:\n  - {name: one, job: {name: b, version: 2, targets: {all: true}}}\n")
        .expect("a job");
}
