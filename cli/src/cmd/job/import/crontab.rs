//! Crontabs, as Vixie's cron and its descendants read them: of a user, and of the system with a user in each entry.
//!
//! An entry becomes a job with one step. Its schedule is told, not carried over.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::job::{Job, JobTargets, Step};

use super::{BadSource, Draft, Fate, Import, NO_TIME_LIMIT, Remark, labels, names, no_hosts, shell};

/// The shell of cron, which is also that of a step.
const SHELL: &str = "/bin/sh";
const NICKNAMES: [&str; 9] = [
    "@reboot",
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
    "@every_minute",
];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The five fields of a schedule.
const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, words: &[] },
    Field { name: "hour", least: 0, most: 23, words: &[] },
    Field { name: "day of the month", least: 1, most: 31, words: &[] },
    Field { name: "month", least: 1, most: 12, words: &MONTHS },
    // Sunday is 0 and 7.
    Field { name: "day of the week", least: 0, most: 7, words: &WEEKDAYS },
];

#[derive(Debug)]
struct Field {
    name: &'static str,
    least: usize,
    most: usize,
    /// Names of the values, the first for `least`.
    words: &'static [&'static str],
}

/// Whether the files at this path name a user in each entry.
pub(super) fn is_of_system(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    path == Path::new("/etc/crontab") || folder.is_some_and(|folder| folder == "cron.d")
}

/// One job for each entry.
///
/// # Errors
/// The first line that is no line of a crontab.
pub(super) fn read(
    text: &str,
    is_system: bool,
    user: Option<&str>,
    targets: Option<&JobTargets>,
) -> Result<Import, BadSource> {
    let mut table = Crontab { targets, ..Crontab::default() };
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() {
            table.comment.clear();
        } else if let Some(comment) = line.strip_prefix('#') {
            table.remember(comment);
        } else if let Some((name, value)) = assignment(line) {
            table.comment.clear();
            table.assign(number, name, value)?;
        } else {
            let entry = entry(line, is_system).map_err(|why| BadSource::new(number, why))?;
            table.add(number, line, &entry, user);
        }
    }
    Ok(table.finish())
}

/// One entry, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    /// Five fields with one blank between them, or a nickname.
    schedule: String,
    user: Option<&'a str>,
    /// What the shell gets.
    command: String,
    /// What the command reads.
    input: Option<String>,
}

/// # Errors
/// Why it is none.
fn entry(line: &str, is_system: bool) -> Result<Entry<'_>, String> {
    let (schedule, rest) = schedule(line)?;
    let (user, command) = if is_system {
        let (user, command) = word(rest);
        if user.is_empty() {
            return Err("the user is missing".to_owned());
        }
        (Some(user), command)
    } else {
        (None, rest)
    };
    let (command, input) = input(command);
    if command.trim().is_empty() {
        return Err(if is_system {
            "the command is missing; in a crontab of the system the user stands before it".to_owned()
        } else {
            "the command is missing".to_owned()
        });
    }
    Ok(Entry { schedule, user, command, input })
}

/// The first word, and what stands behind it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// The schedule, and what stands behind it.
fn schedule(line: &str) -> Result<(String, &str), String> {
    if line.starts_with('@') {
        let (nickname, rest) = word(line);
        let known = nickname.to_ascii_lowercase();
        if NICKNAMES.contains(&known.as_str()) {
            return Ok((known, rest));
        }
        return Err(format!("'{nickname}' is no schedule; there are: {}", NICKNAMES.join(", ")));
    }
    // Some crons take a dash in front as "do not log".
    let mut rest = line.strip_prefix('-').unwrap_or(line);
    let mut fields = Vec::new();
    for field in FIELDS {
        let (text, behind) = word(rest);
        if text.is_empty() {
            return Err(format!(
                "this is neither NAME=VALUE nor an entry with five fields and a command: the {} is missing",
                field.name
            ));
        }
        field.check(text).map_err(|why| {
            // What begins so is hardly meant as one.
            let hint = if fields.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit() || c == '*') {
                "; a line is NAME=VALUE, a comment, or five fields and a command"
            } else {
                ""
            };
            format!("the {} '{text}' {why}{hint}", field.name)
        })?;
        fields.push(text);
        rest = behind;
    }
    Ok((fields.join(" "), rest))
}

impl Field {
    /// # Errors
    /// What is wrong, as the rest of a sentence.
    fn check(&self, text: &str) -> Result<(), String> {
        text.split(',').try_for_each(|part| {
            let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
            if let Some(step) = step
                && !step.parse::<usize>().is_ok_and(|step| step > 0)
            {
                return Err(format!("has '{step}' where a number from 1 stands behind '/'"));
            }
            match span.split_once(['-', '~']) {
                _ if span == "*" || span == "~" => Ok(()),
                Some((from, to)) => {
                    let (from, to) = (self.value(from)?, self.value(to)?);
                    // In the week Sunday stands at both ends.
                    if from > to && !(to == 0 && self.most == 7) {
                        return Err(format!("begins behind its end in '{span}'"));
                    }
                    Ok(())
                }
                None => self.value(span).map(drop),
            }
        })
    }

    fn value(&self, text: &str) -> Result<usize, String> {
        let number = match self.words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
            Some(place) => Some(place + self.least),
            // A sign is no part of a number here.
            None if text.starts_with(|c: char| c.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number
            .filter(|number| (self.least..=self.most).contains(number))
            .ok_or_else(|| format!("has '{text}', which is not from {} to {}", self.least, self.most))
    }
}

/// `NAME = VALUE`, each with or without quotes.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = match line.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        Some(quote) => line[1..].split_once(quote)?,
        None => line.split_at(line.find(|c: char| c == '=' || c.is_whitespace())?),
    };
    let value = rest.trim_start().strip_prefix('=')?.trim();
    Some((name, unquoted(value)))
}

fn unquoted(value: &str) -> &str {
    ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value)
}

/// The command, and what stands behind the first `%`, which it reads; `\%` is a `%`.
fn input(text: &str) -> (String, Option<String>) {
    let (mut command, mut input) = (String::new(), None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let (last, is_command) = match &mut input {
            Some(input) => (input, false),
            None => (&mut command, true),
        };
        match c {
            '\\' if chars.peek() == Some(&'%') => last.extend(chars.next()),
            '%' if is_command => input = Some(String::new()),
            // Behind the first they are line breaks.
            '%' => last.push('\n'),
            c => last.push(c),
        }
    }
    (command, input)
}

/// The command with its input, for a shell.
fn with_input(command: &str, input: Option<&str>) -> String {
    let Some(input) = input else { return command.to_owned() };
    let mut end = "END_OF_INPUT".to_owned();
    while input.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("{{ {command}\n}} <<'{end}'\n{input}\n{end}")
}

/// What was read so far.
#[derive(Debug, Default)]
struct Crontab<'a> {
    targets: Option<&'a JobTargets>,
    import: Import,
    taken: BTreeSet<String>,
    /// Comments right above.
    comment: Vec<String>,
    variables: BTreeMap<String, String>,
    shell: Option<String>,
    time_zone: Option<String>,
    /// Whether it was told that nobody knows as whom entries run, and that some are root's.
    told_user: bool,
    told_root: bool,
}

impl Crontab<'_> {
    fn remember(&mut self, comment: &str) {
        let comment = comment.trim().trim_matches('#').trim();
        // An entry that somebody has switched off describes nothing.
        if comment.is_empty() || schedule(comment).is_ok_and(|(_, rest)| !rest.is_empty()) {
            self.comment.clear();
        } else {
            self.comment.push(comment.to_owned());
        }
    }

    fn remark(&mut self, fate: Fate, line: usize, job: Option<&str>, about: [&str; 3]) {
        let [field, problem, advice] = about.map(str::to_owned);
        let job = job.map(str::to_owned);
        self.import.remarks.push(Remark { fate, line, job, field, problem, advice });
    }

    fn assign(&mut self, line: usize, name: &str, value: &str) -> Result<(), BadSource> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(BadSource::new(line, format!("'{name}' is no name of a variable, and no schedule")));
        }
        match name {
            "SHELL" => self.shell = (value != SHELL && !value.is_empty()).then(|| value.to_owned()),
            "CRON_TZ" => self.time_zone = (!value.is_empty()).then(|| value.to_owned()),
            "MAILTO" if value.is_empty() => {}
            "MAILTO" => {
                let problem = format!("jobs send no mail, and this has gone to {value}");
                let advice = "look at how executions end, or follow the event stream";
                self.remark(Fate::LeftOver, line, None, [name, &problem, advice]);
            }
            "MAILFROM" | "CONTENT_TYPE" | "CONTENT_TRANSFER_ENCODING" => {
                let advice = "nothing, unless MAILTO matters";
                self.remark(Fate::LeftOver, line, None, [name, "jobs send no mail", advice]);
            }
            "RANDOM_DELAY" | "START_HOURS_RANGE" => {
                let problem =
                    format!("it is about when entries begin ({value}), and jobs have no schedules yet");
                self.remark(Fate::LeftOver, line, None, [name, &problem, "keep it with the schedules"]);
            }
            "LOGNAME" | "USER" => {
                let advice = "import with --user, or say user in the steps";
                self.remark(Fate::LeftOver, line, None, [name, "the user of a step decides it", advice]);
            }
            _ if name.starts_with("OPSC_") => {
                let problem = "variables that begin with OPSC_ are ours";
                self.remark(Fate::LeftOver, line, None, [name, problem, "give it another name"]);
            }
            _ => {
                self.variables.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    fn add(&mut self, line: usize, source: &str, entry: &Entry<'_>, user: Option<&str>) {
        let base = name_of(&entry.command).unwrap_or_else(|| format!("cron-line-{line}"));
        let name = names::unique(&mut self.taken, &base);
        let user = entry.user.or(user);
        self.tell(line, &name, entry, user);
        let text = with_input(&entry.command, entry.input.as_deref());
        let mut step = Step {
            name: "command".to_owned(),
            env: self.variables.clone(),
            cwd: self.variables.get("HOME").filter(|home| home.starts_with('/')).cloned(),
            user: user.map(str::to_owned),
            // Only none is for root.
            sandbox: (user == Some("root")).then_some(model::sandbox::Profile::None),
            timeout: Some(NO_TIME_LIMIT),
            ..Step::default()
        };
        match &self.shell {
            Some(shell) => step.argv = Some(vec![shell.clone(), "-c".to_owned(), text]),
            // As a step's line that would be a script.
            None if text.starts_with("#!") => {
                step.argv = Some(vec![SHELL.to_owned(), "-c".to_owned(), text]);
            }
            None => step.run = Some(text),
        }
        let description = std::mem::take(&mut self.comment).join(" ");
        let job = Job {
            name,
            description: shortened(&description, model::limits::DESCRIPTION_BYTES).to_owned(),
            labels: labels([("imported", "crontab")]),
            targets: self.targets.cloned(),
            steps: vec![step],
            ..Job::default()
        };
        self.import.drafts.push(Draft { line, title: source.to_owned(), job });
    }

    /// Says what of an entry is left over.
    fn tell(&mut self, line: usize, name: &str, entry: &Entry<'_>, user: Option<&str>) {
        if entry.schedule == "@reboot" {
            let advice = "a unit of the host's service manager that calls opsctl run is one";
            let problem = "@reboot: no job begins with its host";
            self.remark(Fate::LeftOver, line, Some(name), ["schedule", problem, advice]);
        } else {
            let zone = self.time_zone.as_deref().unwrap_or("of the host");
            let problem = format!("'{}' (time zone: {zone}): jobs have no schedules yet", entry.schedule);
            let advice = format!("until they have, let a cron call: opsctl run {name}");
            self.remark(Fate::LeftOver, line, Some(name), ["schedule", &problem, &advice]);
        }
        if shell::calls_sudo(&entry.command) {
            self.remark(Fate::Changed, line, Some(name), ["command", shell::SUDO, shell::NO_SUDO]);
        }
        if user.is_none() && !self.told_user {
            self.told_user = true;
            let problem =
                "the crontab does not say whose it is, so steps run as the user that a host gives them";
            let advice = "import with --user, or with --system if the first word of each command is its user";
            self.remark(Fate::LeftOver, line, None, ["user", problem, advice]);
        }
        if user == Some("root") && !self.told_root {
            self.told_root = true;
            let problem = "entries of root run as root, and so with the sandbox none";
            let advice = "let the policy of the hosts allow that, or name another user";
            self.remark(Fate::Changed, line, None, ["user", problem, advice]);
        }
    }

    fn finish(mut self) -> Import {
        let Some(line) = self.import.drafts.first().map(|draft| draft.line) else { return self.import };
        if self.targets.is_none() {
            let problem = "a crontab does not say on which host it is";
            self.import.remarks.push(no_hosts(line, None, "hosts", problem));
        }
        let problem = "cron ends nothing that takes long; steps are ended after 24 hours";
        self.remark(Fate::Changed, line, None, ["timeout", problem, "set the timeout that each needs"]);
        self.import
    }
}

/// So much of the text as is allowed.
fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What the command is about, as a name: its program, without what only runs it.
fn name_of(command: &str) -> Option<String> {
    /// They run another program, which stands behind their options.
    const RUNNERS: [&str; 20] = [
        "sudo", "nice", "ionice", "chronic", "nohup", "env", "exec", "command", "time", "sh", "bash", "dash",
        "ksh", "zsh", "python", "python3", "perl", "php", "ruby", "then",
    ];
    /// So do they, behind one word more.
    const WITH_WORD: [&str; 3] = ["cd", "flock", "timeout"];
    let mut words =
        command.split_whitespace().map(|word| word.trim_matches(['(', ')', '{', '}', ';', '"', '\'']));
    let mut found = None;
    while let Some(word) = words.next() {
        let program = word.rsplit('/').next().unwrap_or(word);
        if matches!(program, "test" | "[" | "[[" | "if") {
            words.find(|word| matches!(*word, "&&" | "||" | "]" | "]]" | "" | "then"));
        } else if WITH_WORD.contains(&program) {
            words.find(|word| !word.starts_with('-'));
        } else if !RUNNERS.contains(&program)
            && !word.starts_with(['-', '$', '>', '<', '&', '|', '!'])
            && !word.contains('=')
            && !word.chars().all(|c| c.is_ascii_digit())
            && let Some(slug) = names::job(program)
        {
            found = Some(slug);
            break;
        }
    }
    found.or_else(|| names::job(command.split_whitespace().next()?.rsplit('/').next()?))
}

#[cfg(test)]
mod tests;
