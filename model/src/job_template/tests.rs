use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::job;

const TEMPLATE: &str = "\
# Restarts something.
name: restart
description: Restart a service
parameters:
  name: {type: string, default: restart}
  service: {type: string, required: true}
  count: {type: integer, default: 3, minimum: 1}
  careful: {type: boolean, default: true}
  hosts: {type: list, default: [web-1, web-2]}
  wait: {type: string}
job:
  # Asks first.
  name: ${{ name }}
  description: Restart ${{ service }} on ${{ count }} hosts
  targets:
    hosts: ${{ hosts }}
    max_targets: ${{ count }}
    allow_empty: ${{ careful }}
  start_within: ${{ wait }}
  steps:
    - name: restart
      # What a shell reads.
      run: |
        #!/bin/sh
        echo $${{ x }} '${{ count }}'
        systemctl restart ${{ service }}
      env: {MODE: 0644, SERVICE: \"${{ service }}\"}
    - {name: ask, argv: [echo, \"${{ service }}\"], timeout: 5m}
";

fn values(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn filled(text: &str, pairs: &[(&str, Value)]) -> Result<Filled, Invalid> {
    let template = parse(text).unwrap_or_else(|bad| panic!("{bad}\n{text}"));
    let filled = template.fill(&values(pairs))?;
    assert_eq!(job::parse(&filled.document).unwrap(), filled.job, "{}", filled.document);
    Ok(filled)
}

/// A template of one step, with the parameter `x` of this definition.
fn of(definition: &str, step: &str) -> String {
    format!(
        "name: t\nparameters: {{x: {definition}}}\njob:\n  name: j\n  steps:\n    - name: one\n      {step}\n"
    )
}

#[test]
fn values_are_put_into_their_places() {
    let wait = [("service", json!("nginx")), ("wait", json!("10m"))];
    let Filled { job, document } = filled(TEMPLATE, &wait).unwrap();
    let wanted = "\
# Asks first.
name: restart
description: \"Restart nginx on 3 hosts\"
targets:
  hosts: [\"web-1\", \"web-2\"]
  max_targets: 3
  allow_empty: true
start_within: \"10m\"
steps:
  - name: restart
    # What a shell reads.
    run: |
      #!/bin/sh
      echo ${{ x }} '3'
      systemctl restart nginx
    env: {MODE: 0644, SERVICE: nginx}
  - {name: ask, argv: [echo, nginx], timeout: 5m}
";
    assert_eq!(document, wanted);
    assert_eq!(job.steps[0].env["MODE"], "0644", "as it is written");
    assert_eq!(job.targets.unwrap().max_targets, Some(3));
}

#[test]
fn what_has_no_value_is_left_out() {
    let Filled { job, document } = filled(TEMPLATE, &[("service", json!("nginx"))]).unwrap();
    assert_eq!(job.start_within, None);
    assert!(!document.contains("start_within"), "{document}");
    assert_eq!(job.steps[0].env["MODE"], "0644");
    let bad = filled(&of("{type: string}", "argv: [echo, 'a ${{ x }}']"), &[]).unwrap_err();
    assert_eq!(bad.field, "job.steps[0].argv[1]");
    assert!(bad.problem.contains("no value"), "{bad}");
}

#[test]
fn a_value_never_breaks_the_document() {
    let hostile = [
        "\"\n  run: rm -rf /",
        "'\n  run: rm -rf /",
        "\n    - name: two\n      run: rm -rf /\n",
        "a\n      run: b",
        "}, {name: two, run: x}",
        "]\n",
        "# no remark",
        ": ",
        "- a",
        "&a *a !!int |",
        "\u{2028}\u{85}\r\n\t\u{7}\u{feff}\u{10ffff}",
        "---\nname: other",
        "...",
        " leading",
        "trailing \n\n",
        "${{ x }}",
        "${{ name }} $${{ x }}",
        "\\\" \\n \\u0000",
        "true",
        "0644",
        "1e3",
        "~",
        "",
    ];
    for value in hostile {
        for step in [
            "argv: [echo, '${{ x }}']",
            "argv:\n        - echo\n        - ${{ x }}",
            "argv: [echo, \"${{ x }}\"]",
        ] {
            let job = filled(&of("{type: string}", step), &[("x", json!(value))]).unwrap().job;
            assert_eq!(job.steps.len(), 1, "{value:?}");
            let argv = job.steps[0].argv.clone().unwrap();
            assert_eq!(argv, ["echo", value], "{step}");
        }
        let within = of(
            "{type: string}",
            "run: uptime\n      env:\n        A: a ${{ x }} b\n        B: |\n          one\n          ${{ x }}\n          two\n        C: 'c'",
        );
        let job = filled(&within, &[("x", json!(value))]).unwrap().job;
        assert_eq!(job.steps[0].env["A"], format!("a {value} b"));
        assert_eq!(job.steps[0].env["B"], format!("one\n{value}\ntwo\n"));
        assert_eq!(job.steps[0].env["C"], "c");
    }
    let list = filled(&of("{type: list}", "argv: ${{ x }}"), &[("x", json!(["echo", "${{ x }}", "]\n- a"]))]);
    assert_eq!(list.unwrap().job.steps[0].argv.clone().unwrap(), ["echo", "${{ x }}", "]\n- a"]);
}

#[test]
fn a_value_never_becomes_code_by_accident() {
    for value in [
        "a; rm -rf /",
        "$(id)",
        "`id`",
        "a b",
        "a\nb",
        "-rf",
        "a'b",
        "a\"b",
        "a|b",
        "a>b",
        "*",
        "~",
        "a=b",
        "${{ x }}",
    ] {
        for (step, field) in [
            ("run: systemctl restart ${{ x }}", "run"),
            ("run: |\n        #!/bin/sh\n        systemctl restart '${{ x }}'", "run"),
            ("script: {content: 'echo ${{ x }}'}", "script.content"),
            ("run: uptime\n      if: host.name == '${{ x }}'", "if"),
        ] {
            let bad = filled(&of("{type: string}", step), &[("x", json!(value))]).unwrap_err();
            assert_eq!(bad.field, format!("job.steps[0].{field}"), "{value}");
            assert!(bad.problem.contains("'x'"), "{bad}");
        }
    }
    for value in ["nginx", "app@blue.service", "/var/log/app-1", "10%", "größe"] {
        let job = filled(&of("{type: string}", "run: restart ${{ x }}"), &[("x", json!(value))]).unwrap().job;
        assert_eq!(job.steps[0].run, Some(format!("restart {value}")));
    }
    // All of it is meant to be given.
    filled(&of("{type: string}", "run: ${{ x }}"), &[("x", json!("a; b"))]).unwrap();
    filled(&of("{type: integer}", "run: sleep ${{ x }}"), &[("x", json!(-3))]).unwrap();
    // Nor a template, nor a wider selector.
    for step in
        ["argv: [echo, '${{ x }}']\n      template: true", "template: true\n      argv: [echo, 'a ${{ x }}']"]
    {
        let bad = filled(&of("{type: string}", step), &[("x", json!("{{ host.name }}"))]).unwrap_err();
        assert_eq!(bad.field, "job.steps[0].argv[1]");
    }
    let targets = "name: t\nparameters: {x: {type: string}}\njob:\n  name: j\n  targets: {selector: 'role=${{ x }}'}\n  steps: [{name: a, run: b}]\n";
    let bad = filled(targets, &[("x", json!("web or env=prod"))]).unwrap_err();
    assert_eq!(bad.field, "job.targets.selector");
    let bad = filled(
        &of("{type: string}", "job: {name: b, targets: {exclude: 'role=${{ x }}'}}"),
        &[("x", json!("web or env=prod"))],
    );
    assert_eq!(bad.unwrap_err().field, "job.steps[0].job.targets.exclude");
    assert_eq!(
        filled(targets, &[("x", json!("web"))]).unwrap().job.targets.unwrap().selector.unwrap(),
        "role=web"
    );
}

#[test]
fn what_is_wrong_with_a_template_has_a_place() {
    for (text, line, column, words) in [
        (
            "name: t\nparameters: {}\njob:\n  steps:\n    - run: a ${{ srvice }}\n",
            5,
            12,
            "job.steps[0].run uses 'srvice'",
        ),
        (
            "name: t\nparameters: {service: {type: string}}\njob: {name: '${{ srvice }}'}\n",
            3,
            13,
            "did you mean 'service'?",
        ),
        ("name: t\njob: {name: '${{ a'}\n", 2, 13, "job.name has '${{' and no '}}'"),
        ("name: t\njob: {name: '${{ a + 1 }}'}\n", 2, 13, "job.name has 'a + 1'"),
        ("name: t\njob: {env: {'${{ a }}': b}}\n", 2, 12, "job.env has '${{' in the key"),
        ("name: t\njob: [a]\n", 2, 6, "job is no job"),
        ("name: T t\njob: {}\n", 1, 7, "name must have"),
        ("name: t\n", 1, 1, "job"),
        ("name: t\njob: {}\njbo: {}\n", 3, 1, "jbo"),
        ("name: t\nparameters: {x: {type: txt}}\njob: {}\n", 2, 24, "txt"),
        (
            "name: t\nparameters: {x: {type: integer, default: a}}\njob: {}\n",
            2,
            17,
            "parameters.x has a default",
        ),
        ("name: t\njob: {a: 1, a: 2}\n", 2, 13, "a"),
    ] {
        let bad = parse(text).expect_err(text);
        assert!(bad.to_string().contains(words), "{bad}");
        assert_eq!((bad.line, bad.column), (line, column), "{text}{bad}");
    }
    let long = format!("name: t\ndescription: {}\njob: {{}}\n", "a".repeat(limits::DESCRIPTION_BYTES + 1));
    assert!(parse(&long).unwrap_err().to_string().contains("DESCRIPTION_BYTES"));
}

#[test]
fn what_is_wrong_with_what_was_filled_has_a_path() {
    let filled = |step: &str, x: Value| filled(&of("{type: string}", step), &[("x", x)]).unwrap_err();
    for (step, x, field, words) in [
        ("run: uptime\n      timeout: ${{ x }}", json!("soon"), "job.steps[0].timeout", "cannot be read"),
        ("run: uptime\n      cwd: ${{ x }}", json!("nowhere"), "job.steps[0].cwd", "absolute"),
        ("run: uptime\n      rnu: ${{ x }}", json!("a"), "job.steps[0].rnu", "rnu"),
        ("run: uptime\n      needs: [one, '${{ x }}']", json!("two"), "job.steps[0].needs[0]", ""),
        ("on_failure: ${{ x }}", json!("panic"), "job.steps[0].on_failure", "panic"),
        ("run: uptime", json!(3), "parameters.x", "is not a text"),
    ] {
        let bad = filled(step, x);
        assert_eq!(bad.field, field, "{bad}");
        assert!(bad.problem.contains(words), "{bad}");
    }
    let bad =
        parse("name: t\nparameters: {x: {type: string, required: true}}\njob: {name: '${{ x }}'}\n").unwrap();
    assert_eq!(bad.fill(&BTreeMap::new()).unwrap_err().to_string(), "parameters.x is required");
    let lacks = bad.fill(&values(&[("x", json!("a"))])).unwrap_err();
    assert_eq!(lacks.to_string(), "job.steps is missing");
    let lacks = filled("run: uptime\n      container: {}", json!("a"));
    assert_eq!(lacks.to_string(), "job.steps[0].container.image is missing");
    let list = of("{type: list}", "argv: [echo, 'a ${{ x }}']");
    let bad = parse(&list).unwrap().fill(&values(&[("x", json!(["a"]))])).unwrap_err();
    assert_eq!(bad.field, "job.steps[0].argv[1]");
}

#[test]
fn size_has_its_limits() {
    let begun = Instant::now();
    let places = "${{ x }}".repeat(10_000);
    let many = of("{type: string}", &format!("argv: [echo, '{places}']"));
    let job = filled(&many, &[("x", json!("ab"))]).unwrap().job;
    assert_eq!(job.steps[0].argv.clone().unwrap()[1].len(), 20_000);
    let items = "'${{ x }}', ".repeat(10_000);
    let bad = filled(&of("{type: string}", &format!("argv: [{items}]")), &[("x", json!("a".repeat(20_000)))])
        .unwrap_err();
    assert!(bad.to_string().contains("DOCUMENT_BYTES"), "{bad}");
    let bad = filled(&many, &[("x", json!("a".repeat(20_000)))]).unwrap_err();
    assert!(bad.to_string().contains("DOCUMENT_BYTES"), "{bad}");
    let bad = filled(&many, &[("x", json!("a".repeat(40_000)))]).unwrap_err();
    assert!(bad.to_string().contains("PARAMETERS_BYTES"), "{bad}");
    // Neither depth nor doubling takes all there is.
    let deep = format!("name: t\njob: {{a: {}}}\n", "[".repeat(100_000));
    assert!(parse(&deep).is_err());
    let deep = format!("name: t\njob: {{a: {}{}}}\n", "[".repeat(2_000), "]".repeat(2_000));
    assert!(parse(&deep).is_err());
    let doubled: String = (1..40).map(|n| format!("  a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    assert!(parse(&format!("name: t\njob:\n  a0: &a0 '${{{{ x }}}}'\n{doubled}")).is_err());
    let long = format!("name: t\njob: {{a: {}}}\n", "a".repeat(limits::DOCUMENT_BYTES));
    assert!(parse(&long).unwrap_err().to_string().contains("DOCUMENT_BYTES"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn any_form_of_a_document_is_filled() {
    for text in [
        // JSON, one line, anchors, other indentation, keys behind the job.
        r#"{"name": "t", "parameters": {"x": {"type": "string"}}, "job": {"name": "j", "steps": [{"name": "a", "argv": ["echo", "${{ x }}"]}]}}"#,
        "job: {name: j, steps: [{name: a, argv: [echo, '${{ x }}']}]}\nname: t\nparameters: {x: {type: string}}\n",
        "job:\n    name: j\n    steps:\n    - name: a\n      argv: [echo, '${{ x }}']\n\n# Behind.\nname: t\nparameters: {x: {type: string}}\n",
        "name: t\nparameters: {x: {type: string}}\njob:\n  name: j\n  steps:\n    - name: a\n      argv: &both [echo, '${{ x }}']\n    - {name: b, argv: *both}\n",
        "name: t\nparameters: {x: {type: string, description: &v '${{ x }}'}}\njob:\n  name: j\n  steps:\n    - name: a\n      argv: [echo, *v]\n",
        "name: t\nparameters: {x: {type: string}}\njob:\n  name: j\n  steps:\n    - name: a\n      argv: [echo, !!str '${{ x }}']\n",
        "name: t\r\nparameters: {x: {type: string}}\r\njob:\r\n  name: j\r\n  steps:\r\n    - name: a\r\n      argv: [echo, '${{ x }}']\r\n",
        "---\nname: t\nparameters: {x: {type: string}}\njob:\n  name: j\n  steps:\n    - name: a\n      argv: [echo, größe, '${{ x }}']\n...\n",
    ] {
        let job = filled(text, &[("x", json!("a b: \"c\" # d"))]).unwrap().job;
        for step in &job.steps {
            assert_eq!(step.argv.as_ref().unwrap().last().unwrap(), "a b: \"c\" # d", "{text}");
        }
    }
}

#[test]
fn a_template_may_have_no_places() {
    let text = "name: t\njob:\n  name: j\n  steps: [{name: a, run: 'echo $${{ x }} {{ y }}'}]\n";
    let job = filled(text, &[]).unwrap().job;
    assert_eq!(job.steps[0].run.as_deref(), Some("echo ${{ x }} {{ y }}"));
    let bad = filled(text, &[("name", json!("b"))]).unwrap_err();
    assert_eq!(bad.field, "parameters.name");
}

#[test]
fn a_probe_is_a_step_too() {
    let of = |probe: &str| {
        format!(
            "name: t\nparameters: {{x: {{type: string}}}}\njob:\n  name: a\n  targets: {{all: true}}\n  \
             rollout: {{canary: {{hosts: 1, probe: {probe}}}}}\n  steps:\n    - {{name: do, run: uptime}}\n"
        )
    };
    let value = |text: &str| [("x", json!(text))];
    let bad = filled(&of("{run: 'is ${{ x }}'}"), &value("a; b")).unwrap_err();
    assert_eq!(bad.field, "job.rollout.canary.probe.run");
    filled(&of("{run: 'is ${{ x }}'}"), &value("well")).unwrap();
    filled(&of("{argv: [is, '${{ x }}'], template: true}"), &value("{{ params.y }}")).unwrap_err();
    // In a condition a value names nothing, in a selector it is no list.
    filled(&of("{run: x, if: \"host.name == '${{ x }}'\"}"), &value("params.mode")).unwrap_err();
}
