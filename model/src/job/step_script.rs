//! The script of a step: one that stands in the document, or a saved one, whose text is filled in when the job is started.

use serde::{Deserialize, Serialize};

use crate::{
    Invalid,
    command::{Program, Script},
    script::{ScriptDocument, ScriptName},
};

/// What stands for a text that is not known yet.
const STAND_IN: &str = "#!/bin/sh\n:\n";

/// A script of a step: exactly one of `content` and `use` says which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepScript {
    /// The text, UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// A saved script: `NAME@VERSION`, or `NAME` for the newest version when the job is started.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// The interpreter with its options, split at spaces; without it the script's `#!` line decides. A saved script has its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// Arguments handed to the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The saved script, once it was looked up.
    #[serde(skip)]
    filled: Option<Box<Script>>,
}

impl From<Script> for StepScript {
    fn from(script: Script) -> Self {
        let Script { content, interpreter, args } = script;
        Self { content: Some(content), interpreter, args, ..Self::default() }
    }
}

impl StepScript {
    /// What runs. The text of a saved script is empty until it is filled in, and an empty text is no command.
    ///
    /// # Errors
    /// When it does not say exactly one script.
    pub(super) fn program(&self) -> Result<Script, Invalid> {
        let args = self.args.clone();
        match (&self.content, &self.used, &self.filled) {
            (Some(content), None, _) => {
                Ok(Script { content: content.clone(), interpreter: self.interpreter.clone(), args })
            }
            (None, Some(_), Some(filled)) => Ok(Script { args, ..(**filled).clone() }),
            (None, Some(used), None) => {
                let _: ScriptName =
                    used.parse().map_err(|invalid: Invalid| Invalid::new("script.use", invalid.problem))?;
                if self.interpreter.is_some() {
                    let why = "is for a text that stands here; a saved script has its own";
                    return Err(Invalid::new("script.interpreter", why));
                }
                Ok(Script { content: String::new(), interpreter: None, args })
            }
            (Some(_), Some(_), _) => {
                Err(Invalid::new("script.use", "is one too many: a script has either content or use"))
            }
            (None, None, _) => Err(Invalid::new("script", "says no script: it has either content or use")),
        }
    }

    /// Puts a text where that of a saved script will be: all else of the command can be checked before.
    pub(super) fn stand_in(&self, program: &mut Program) {
        if let Program::Script(script) = program
            && self.used.is_some()
            && self.filled.is_none()
        {
            STAND_IN.clone_into(&mut script.content);
        }
    }

    /// Makes it this version of the saved script.
    pub fn fill(&mut self, script: &ScriptDocument, version: i32) {
        self.used = Some(ScriptName { name: script.name.clone(), version: Some(version) }.to_string());
        self.filled = Some(Box::new(script.program()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{self, Job, Plan, Work};

    fn job(script: &str, more: &str) -> Result<Job, job::BadDocument> {
        job::parse(&format!("name: a\nsteps:\n  - name: one\n    script: {script}\n{more}"))
    }

    fn saved() -> ScriptDocument {
        ScriptDocument {
            name: "deploy".into(),
            content: "#!/usr/bin/python3\nprint('{{ x }}')\n".into(),
            ..ScriptDocument::default()
        }
    }

    fn plan(job: &Job) -> Result<Plan, Invalid> {
        let id = "00000000-0000-7000-8000-000000000001".parse().unwrap();
        Plan::of(job, id, 1, job::parameters::Values::default())
    }

    #[test]
    fn a_script_stands_here_or_is_saved() {
        job("{content: 'true', interpreter: sh}", "").unwrap();
        job("{use: deploy, args: [--fast]}", "").unwrap();
        for (script, words) in [
            ("{}", "either content or use"),
            ("{content: '#!/bin/sh', use: deploy}", "one too many"),
            ("{use: deploy, interpreter: sh}", "has its own"),
            ("{use: Deploy}", "script.use"),
            ("{use: deploy@0}", "script.use"),
            ("{use: deploy@new}", "script.use"),
            ("{use: deploy, arg: [x]}", "arg"),
        ] {
            let bad = job(script, "").unwrap_err();
            assert!(bad.to_string().contains(words) && bad.line == 4, "{script}: {bad:?}");
        }
    }

    #[test]
    fn nothing_runs_until_it_is_filled_in() {
        let mut job = job("{use: deploy, args: ['{{ host.name }}']}", "    template: true\n").unwrap();
        assert!(plan(&job).unwrap_err().problem.contains("is empty"));
        let paths: Vec<String> = job
            .saved_scripts()
            .map(|(path, script)| {
                script.fill(&saved(), 3);
                path
            })
            .collect();
        assert_eq!(paths, ["steps[0].script.use"]);
        let plan = plan(&job).unwrap();
        assert_eq!(plan.steps[0].script.as_deref(), Some("deploy@3"));
        let Work::Command(command) = &plan.steps[0].work else { panic!("{plan:?}") };
        let Program::Script(script) = &command.program else { panic!("{command:?}") };
        assert_eq!(
            (script.content.as_str(), &script.args[..]),
            (&*saved().content, &["{{ host.name }}".to_owned()][..])
        );
        // Its arguments are filled in, its text stays as it was saved.
        let host = job::context::Host { name: "web-1".into(), ..Default::default() };
        let context = job::context::Context { host, ..Default::default() };
        let filled = plan.filled(0, &context).unwrap().unwrap();
        let Program::Script(script) = &filled.program else { panic!("{filled:?}") };
        assert_eq!((script.content.as_str(), script.args[0].as_str()), (&*saved().content, "web-1"));
        // What was filled in is no part of a document.
        let written = serde_json::to_string(&job).unwrap();
        assert!(!written.contains("print"), "{written}");
    }
}
