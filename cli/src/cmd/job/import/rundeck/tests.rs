use model::job::parameters::ParameterType;
use proptest::prelude::*;

use super::*;

const EXPORT: &str = r##"
- defaultTab: nodes
  description: |
    Deploy the shop.

    With **markdown**.
  executionEnabled: true
  group: shop/web
  id: 11111111-2222-3333-4444-555555555555
  loglevel: INFO
  loglimit: 20MB
  loglimitAction: truncate
  multipleExecutions: true
  name: Deploy Shop
  nodeFilterEditable: false
  nodefilters:
    dispatch:
      excludePrecedence: true
      keepgoing: false
      rankOrder: ascending
      successOnEmptyNodeFilter: false
      threadcount: '5'
    filter: 'tags: web+prod !os-family: windows'
  nodesSelectedByDefault: true
  notification:
    onfailure:
      recipients: ops@example.com,dev@example.com
    onsuccess:
      plugin:
        type: Chat
        configuration: {room: ops}
  options:
  - name: Version
    description: What to deploy
    required: true
    regex: '[0-9.]+'
    value: 1.10
  - name: mode
    enforced: true
    values: [fast, safe]
    value: safe
  - name: hosts
    multivalued: true
    delimiter: ','
    values: [a, b]
    enforced: true
    value: a,b
  - name: password
    secure: true
    valueExposed: true
  - name: hint
    values: [x, y]
  plugins:
    ExecutionLifecycle: {}
  retry:
    delay: 30s
    retry: '2'
  schedule:
    month: '*'
    time: {hour: '05', minute: '30', seconds: '0'}
    weekday: {day: 'MON-FRI'}
    year: '*'
  scheduleEnabled: true
  timeZone: Europe/Berlin
  sequence:
    keepgoing: false
    strategy: node-first
    commands:
    - description: Fetch it
      exec: fetch --version ${option.Version} --to '/srv/${option.mode}' "${option.hint}"
      errorhandler:
        exec: clean-up ${option.Version}
        keepgoingOnSuccess: false
    - script: |-
        #!/bin/bash
        echo "@option.Version@" "$RD_OPTION_MODE"
        for host in @option.hosts@; do echo "$host"; done
      args: --mode ${option.mode} 'two words'
    - script: print("hi")
      scriptInterpreter: python3 -u
      args: ${option.Version}
    - script: |
        import os
        print("@option.mode@")
      scriptInterpreter: python3
    - jobref: {group: shop, name: Warm Up, args: '-url x'}
    - scriptfile: /srv/rundeck/check.sh
      args: -v
    - exec: login --password ${option.password} on ${node.name}
    - type: copyfile
      nodeStep: true
      configuration: {destinationPath: /tmp/x}
    - exec: off
      enabled: false
  timeout: 1h 30m
  uuid: 11111111-2222-3333-4444-555555555555
"##;

fn one(text: &str) -> (Job, Vec<Remark>) {
    let mut import = read(text, None).unwrap_or_else(|bad| panic!("{bad:?}"));
    assert_eq!(import.drafts.len(), 1);
    let job = import.drafts.remove(0).job;
    job.validate().unwrap_or_else(|invalid| panic!("{invalid}: {job:?}"));
    (job, import.remarks)
}

fn fields(remarks: &[Remark], fate: Fate) -> Vec<&str> {
    let mut fields: Vec<&str> =
        remarks.iter().filter(|remark| remark.fate == fate).map(|remark| remark.field.as_str()).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

/// A job with one command, and what else is said.
fn minimal(command: &str, more: &str) -> String {
    format!(
        "- name: a\n{more}\n  nodefilters: {{filter: '.*', dispatch: {{threadcount: 1}}}}\n  sequence:\n    commands:\n    - {command}\n"
    )
}

#[test]
fn an_export_becomes_a_job() {
    let (job, remarks) = one(EXPORT);
    assert_eq!(job.name, "deploy-shop");
    assert!(job.description.starts_with("Deploy the shop.\n"));
    assert_eq!(job.labels["group"], "shop/web");
    assert_eq!(job.labels["rundeck-id"], "11111111-2222-3333-4444-555555555555");
    let targets = job.targets.as_ref().unwrap();
    assert_eq!(targets.selector.as_deref(), Some("(web and prod) and not os-family=windows"));
    let rollout = job.rollout.as_ref().unwrap();
    assert_eq!((rollout.max_parallel, rollout.max_failures), (Some(5), Some(Share::Hosts(0))));
    let names: Vec<&str> = job.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        ["fetch-it", "fetch-it-failed", "step-2", "step-3", "step-4", "step-5", "step-6", "step-7", "step-8"]
    );
    for step in &job.steps {
        assert_eq!(step.timeout, Some(Length(5400)));
        assert_eq!(step.retry.as_ref().map(|retry| (retry.attempts, retry.backoff_seconds)), Some((3, 30)));
        assert_eq!(step.output_limit_bytes, Some(20 << 20));
    }
    assert_eq!(
        fields(&remarks, Fate::LeftOver),
        [
            "notification.onfailure.recipients",
            "notification.onsuccess.plugin",
            "options.password",
            "schedule",
            "sequence.commands[3].script",
            "sequence.commands[4].jobref",
            "sequence.commands[5].scriptfile",
            "sequence.commands[6].exec",
            "sequence.commands[7].type",
            "sequence.commands[8]",
        ]
    );
    let schedule = remarks.iter().find(|remark| remark.field == "schedule").unwrap();
    assert!(
        schedule.problem.starts_with(
            "'30 05 * * MON-FRI' (time zone: Europe/Berlin; in Rundeck '0 30 05 ? * MON-FRI *')"
        ),
        "{schedule:?}"
    );
    assert_eq!(EXPORT.lines().nth(schedule.line - 2), Some("  schedule:"), "{schedule:?}");
    assert!(remarks.iter().all(|remark| remark.job.as_deref() == Some("deploy-shop")));
}

#[test]
fn options_become_parameters() {
    let (job, remarks) = one(EXPORT);
    let names: Vec<&str> = job.parameters.keys().map(String::as_str).collect();
    assert_eq!(names, ["hint", "hosts", "mode", "version"]);
    let version = &job.parameters["version"];
    assert_eq!((version.kind, version.required), (ParameterType::String, true));
    assert_eq!(version.default, Some("1.10".into()), "as it is written");
    assert_eq!(version.pattern.as_deref(), Some("[0-9.]+"));
    let mode = &job.parameters["mode"];
    assert_eq!((mode.kind, mode.choices.len()), (ParameterType::Choice, 2));
    let hosts = &job.parameters["hosts"];
    assert_eq!(hosts.kind, ParameterType::List);
    assert_eq!(hosts.default, Some(serde_json::json!(["a", "b"])));
    assert_eq!(job.parameters["hint"].description.as_deref(), Some("(proposed: x, y)"));
    assert!(fields(&remarks, Fate::Changed).contains(&"options.Version"));
    // What is not allowed here is told, and the rest stays.
    let (job, remarks) = one(&minimal(
        "exec: x",
        "  options:\n    old: {regex: '(?=x)y', value: z}\n    Day: {isDate: true, dateFormat: MM/DD}\n    day: {enforced: true, valuesUrl: 'http://x', values: [a], value: b}\n    up: {type: file}",
    ));
    let names: Vec<&str> = job.parameters.keys().map(String::as_str).collect();
    assert_eq!(names, ["day", "day_2", "old"]);
    assert_eq!(job.parameters["old"].default, Some("z".into()));
    assert_eq!(
        fields(&remarks, Fate::LeftOver),
        [
            "options.Day.dateFormat",
            "options.Day.isDate",
            "options.day.value",
            "options.day.valuesUrl",
            "options.old.regex",
            "options.up"
        ]
    );
}

#[test]
fn values_are_variables_in_steps() {
    let (job, remarks) = one(EXPORT);
    assert_eq!(
        job.steps[0].run.as_deref(),
        Some(
            r#"fetch --version "$OPSC_PARAM_VERSION" --to '/srv/'"$OPSC_PARAM_MODE"'' "${OPSC_PARAM_HINT}""#
        )
    );
    assert_eq!(
        job.steps[2].run.as_deref(),
        Some(
            "#!/bin/bash\nset -- --mode \"$OPSC_PARAM_MODE\" 'two words'\necho \"${OPSC_PARAM_VERSION}\" \"$OPSC_PARAM_MODE\"\n\
             for host in \"$(printf '%s' \"$OPSC_PARAM_HOSTS\" | tr '\\n' ,)\"; do echo \"$host\"; done"
        )
    );
    assert_eq!(
        job.steps[3].run.as_deref(),
        Some(
            "#!/bin/sh\nexec python3 -u /dev/fd/3 \"$OPSC_PARAM_VERSION\" 3<<'END_OF_SCRIPT'\nprint(\"hi\")\nEND_OF_SCRIPT\n"
        )
    );
    let told = |field: &str, words: &str| {
        remarks.iter().any(|remark| remark.field == field && remark.problem.contains(words))
    };
    assert!(told("sequence.commands[0].exec", "${option.mode} stood in single quotes"));
    assert!(told("sequence.commands[0].exec", "${option.hint} stood in double quotes"));
    assert!(told("sequence.commands[1].script", "RD_OPTION_MODE is OPSC_PARAM_MODE"));
}

#[test]
fn half_a_step_fails() {
    let (job, _) = one(EXPORT);
    for (step, words, kept) in [
        (4, "@option.mode@ stands in its text", Some("print(\"@option.mode@\")")),
        (5, "jobref", None),
        (6, "/srv/rundeck/check.sh -v", None),
        (7, "${option.password} has no value", Some("login --password")),
        (8, "copyfile", None),
    ] {
        let run = job.steps[step].run.as_deref().unwrap();
        assert!(run.starts_with("#!/bin/sh\necho 'not carried over: "), "{run}");
        assert!(run.contains(words) && run.contains("\nexit 1\n"), "{run}");
        assert!(kept.is_none_or(|kept| run.contains(kept)), "{run}");
        let output = std::process::Command::new("/bin/sh").args(["-c", run]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{run}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}

#[test]
fn failures_are_handled_as_there() {
    let (job, _) = one(EXPORT);
    let handler = &job.steps[1];
    assert!(handler.always && job.steps[0].on_failure == OnFailure::Stop);
    assert_eq!(handler.needs.as_deref(), Some(["fetch-it".to_owned()].as_slice()));
    assert_eq!(
        handler.condition.as_deref(),
        Some("steps[\"fetch-it\"].state == \"failed\" or steps[\"fetch-it\"].state == \"timed_out\"")
    );
    let (job, _) = one(&minimal("{exec: x, errorhandler: {exec: y, keepgoingOnSuccess: true}}", ""));
    assert!(!job.steps[1].always && job.steps[1].on_failure == OnFailure::Stop);
    assert_eq!(job.steps[0].on_failure, OnFailure::Continue);
}

#[test]
fn strategies() {
    let job = |strategy: &str, more: &str| {
        one(&format!(
            "- name: a\n{more}\n  sequence:\n    keepgoing: true\n    strategy: {strategy}\n    commands: [{{exec: x}}, {{exec: y}}]\n"
        ))
    };
    let (parallel, _) = job("parallel", "");
    assert!(
        parallel
            .steps
            .iter()
            .all(|step| step.needs == Some(Vec::new()) && step.on_failure == OnFailure::Continue)
    );
    let (by_step, remarks) = job("sequential", "");
    assert_eq!(by_step.order, Order::Step);
    assert_eq!(fields(&remarks, Fate::LeftOver), ["nodefilters"], "it runs on the server");
    let (limited, remarks) = job(
        "step-first",
        "  nodefilters: {filter: 'tags: web', dispatch: {threadcount: 3, keepgoing: true}}",
    );
    assert_eq!(limited.order, Order::Host);
    assert_eq!(limited.rollout, Some(Rollout { max_parallel: Some(3), ..Rollout::default() }));
    assert_eq!(fields(&remarks, Fate::LeftOver), ["sequence.strategy"]);
    let (_, remarks) = job("ruleset", "");
    assert_eq!(fields(&remarks, Fate::LeftOver), ["nodefilters", "sequence.strategy"]);
}

#[test]
fn nothing_is_dropped_in_silence() {
    for (command, more, field) in [
        ("exec: x", "  retry: '${option.n}'", "retry"),
        ("exec: x", "  retry: 50", "retry"),
        ("exec: x", "  timeout: '${option.t}'", "timeout"),
        ("exec: x", "  timeout: 3 fortnights", "timeout"),
        ("exec: x", "  loglimit: 100/node", "loglimit"),
        ("exec: x", "  loglevel: DEBUG", "loglevel"),
        ("exec: x", "  executionEnabled: false", "executionEnabled"),
        ("exec: x", "  multipleExecutions: false", "multipleExecutions"),
        ("exec: x", "  orchestrator: {type: subset, configuration: {count: 1}}", "orchestrator"),
        ("exec: x", "  plugins: {ExecutionLifecycle: {killer: {kill: true}}}", "plugins"),
        ("exec: x", "  somethingNew: 1", "somethingNew"),
        ("{exec: x, plugins: {LogFilter: [{type: mask}]}}", "", "sequence.commands[0].plugins"),
        ("{script: x, args: 'it''s'}", "", "sequence.commands[0].args"),
        (
            "{script: x, scriptInterpreter: 'sudo -u ${option.u} sh'}",
            "",
            "sequence.commands[0].scriptInterpreter",
        ),
        (
            "{script: x, args: a b, interpreterArgsQuoted: true}",
            "",
            "sequence.commands[0].interpreterArgsQuoted",
        ),
        ("{script: x, fileExtension: ps1}", "", "sequence.commands[0].fileExtension"),
        ("exec: x $RD_JOB_USERNAME", "", "sequence.commands[0].exec"),
        ("exec: x ${globals.proxy}", "", "sequence.commands[0].exec"),
        ("{}", "", "sequence.commands[0]"),
        ("just a text", "", "sequence.commands[0]"),
        ("exec: x", "  schedule: {crontab: '0 0 5 L * ? *'}", "schedule"),
    ] {
        let (_, remarks) = one(&minimal(command, more));
        assert_eq!(fields(&remarks, Fate::LeftOver), [field], "{command} {more}: {remarks:?}");
    }
    // What the remarks of all jobs have in common stays out of the list of what is left over.
    let (job, remarks) =
        one(&minimal("{script: echo hi, args: a 'b c', description: Say Hi}", "  timeout: 10m"));
    assert!(fields(&remarks, Fate::LeftOver).is_empty(), "{remarks:?}");
    let script = job.steps[0].script.as_ref().unwrap();
    assert_eq!((job.steps[0].name.as_str(), script.interpreter.as_deref()), ("say-hi", Some("/bin/sh")));
    assert_eq!(script.args, ["a", "b c"]);
}

#[test]
fn schedules_of_quartz() {
    for (quartz, want) in [
        ("0 30 */6 ? Jan Mon *", Some("30 */6 * Jan Mon")),
        ("0 0 5 ? * 2-6", Some("0 5 * * MON-FRI")),
        ("0 0 5 1 * ? *", Some("0 5 1 * *")),
        ("0 0 5 ? * 1,7 *", Some("0 5 * * SUN,SAT")),
        ("30 0 5 1 * ? *", None),
        ("0 0 5 1 * ? 2030", None),
        ("0 0 5 L * ? *", None),
        ("0 0 5 ? * 6L *", None),
        ("0 0 5 ? * 3#2 *", None),
        ("0 0 5 15W * ? *", None),
        ("0 0 5 ? * 9 *", None),
        ("", None),
    ] {
        assert_eq!(cron(quartz).as_deref(), want, "{quartz}");
    }
    for (text, want) in [
        ("120", Some(120)),
        ("6h 30m", Some(23_400)),
        ("1d2h3m4s", Some(93_784)),
        ("1w", Some(604_800)),
        ("", None),
        ("h", None),
        ("5x", None),
        ("99999999999999999999h", None),
    ] {
        assert_eq!(seconds(text), want, "{text}");
    }
}

#[test]
fn names_are_told_apart() {
    let job = |name: &str, group: &str| {
        format!("- name: {name}\n  group: {group}\n  sequence: {{commands: [{{exec: x}}]}}\n")
    };
    let text =
        [job("Clean", "a"), job("clean", "b/c"), job("Clean", "b/c"), job("'日本'", "x"), job("schema", "x")]
            .concat();
    let import = read(&text, None).unwrap();
    let names: Vec<&str> = import.drafts.iter().map(|draft| draft.job.name.as_str()).collect();
    assert_eq!(names, ["clean", "b-c-clean", "b-c-clean-2", "rundeck-line-10", "schema-job"]);
    for draft in &import.drafts {
        draft.job.validate().unwrap();
    }
    let renamed = import.remarks.iter().filter(|remark| remark.field == "name").count();
    assert_eq!(renamed, 5, "{:?}", import.remarks);
}

#[test]
fn what_is_no_export_says_where() {
    for (text, line, words) in [
        ("<joblist>\n", 1, "export the jobs as YAML"),
        ("- name: [\n", 1, "no YAML"),
        ("a text\n", 1, "no job of Rundeck"),
        ("- name: a\n  sequence: {commands: []}\n- 17\n", 3, "no job of Rundeck"),
        ("- sequence: {commands: []}\n", 1, "no name"),
        ("- name: a\n", 1, "no sequence"),
        ("name: a\nsteps: []\n", 1, "no sequence"),
    ] {
        let bad = read(text, None).unwrap_err();
        assert!(bad.line == line && bad.why.contains(words), "{text}: {bad:?}");
    }
    assert!(read("", None).unwrap().drafts.is_empty());
    // JSON is YAML.
    let json = r#"[{"name": "a", "sequence": {"commands": [{"exec": "x"}]}}]"#;
    assert_eq!(read(json, None).unwrap().drafts.len(), 1);
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "(\\PC|[\n\"'{}: -]){0,60}", place in 0..6_usize) {
        let quoted = serde_json::to_string(&text).unwrap();
        let document = match place {
            0 => text,
            1 => minimal(&format!("exec: {quoted}"), ""),
            2 => minimal(&format!("{{script: {quoted}, args: {quoted}, scriptInterpreter: {quoted}}}"), ""),
            3 => minimal("exec: x ${option.a}", &format!("  options: [{{name: a, regex: {quoted}, value: {quoted}, values: [{quoted}]}}]")),
            4 => minimal("exec: x", &format!("  schedule: {{crontab: {quoted}}}\n  timeout: {quoted}\n  retry: {quoted}\n  loglimit: {quoted}")),
            _ => format!("- name: {quoted}\n  group: {quoted}\n  nodefilters: {{filter: {quoted}}}\n  sequence: {{commands: [{{description: {quoted}, exec: x}}]}}\n"),
        };
        if let Ok(import) = read(&document, None) {
            for draft in import.drafts {
                let _ = draft.job.validate();
            }
        }
    }
}
