//! Jobs of Rundeck, as its export in YAML has them (and that in JSON, which is YAML).

mod options;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    job::{Job, JobTargets, Length, OnFailure, Order, Rollout, Share, Step},
    limits,
    retry::Retry,
};

use self::options::Known;
use super::{
    BadSource, Draft, Fate, Import, NO_TIME_LIMIT, Remark,
    filter::Filter,
    labels, names, no_hosts,
    yaml::{self, Kind, Node},
};

/// What is about Rundeck itself, or only about how a page of it looks.
const OF_NO_INTEREST: [&str; 14] = [
    "project",
    "loglevel",
    "defaultTab",
    "nodeFilterEditable",
    "averageDuration",
    "serverNodeUUID",
    "dateCreated",
    "lastUpdated",
    "user",
    "userRoleList",
    "permalink",
    "href",
    "scheduleEnabled",
    "timeZone",
];

/// One job for each.
///
/// # Errors
/// When it is no list of jobs.
pub(super) fn read(text: &str, targets: Option<&JobTargets>) -> Result<Import, BadSource> {
    if text.trim_start().starts_with('<') {
        return Err(BadSource::new(1, "this looks like XML; let Rundeck export the jobs as YAML"));
    }
    let root = yaml::read(text)?;
    let mut import = Import::default();
    let mut taken = BTreeSet::new();
    for job in root.items() {
        let wrong = |why: &str| Err(BadSource::new(job.line, why));
        if !matches!(job.kind, Kind::Map(_)) {
            return wrong("this is no job of Rundeck, which is a map with name and sequence");
        }
        let Some(title) = job.get("name").and_then(Node::text).filter(|name| !name.trim().is_empty()) else {
            return wrong("this is no job of Rundeck: it has no name");
        };
        if !job.get("sequence").is_some_and(|sequence| matches!(sequence.kind, Kind::Map(_))) {
            return wrong("this is no job of Rundeck: it has no sequence");
        }
        let group = job.get("group").and_then(Node::text).unwrap_or_default();
        let name = names::job(title).unwrap_or_else(|| format!("rundeck-line-{}", job.line));
        // Jobs of different groups may have the same name.
        let in_group = names::job(&format!("{group} {title}")).filter(|_| taken.contains(&name));
        let name = names::unique(&mut taken, &in_group.unwrap_or(name));
        let converter = Converter { name, line: job.line, ..Converter::default() };
        let line = job.line;
        let (job, remarks) = converter.convert(job, title, targets);
        import.drafts.push(Draft { line, title: title.to_owned(), job });
        import.remarks.extend(remarks);
    }
    Ok(import)
}

/// One job on its way.
#[derive(Debug, Default)]
struct Converter {
    /// Of our job.
    name: String,
    line: usize,
    remarks: Vec<Remark>,
    /// What became of the options, by their names there.
    options: BTreeMap<String, Known>,
    step_names: BTreeSet<String>,
}

/// What all steps of a job have.
#[derive(Debug, Clone, Default)]
struct Common {
    timeout: Option<Length>,
    retry: Option<Retry>,
    output_limit_bytes: Option<u64>,
    halts: bool,
}

impl Converter {
    fn remark(&mut self, fate: Fate, line: usize, field: &str, problem: impl Into<String>, advice: &str) {
        self.remarks.push(Remark {
            fate,
            line,
            job: Some(self.name.clone()),
            field: field.to_owned(),
            problem: problem.into(),
            advice: advice.to_owned(),
        });
    }

    fn left_over(&mut self, line: usize, field: &str, problem: impl Into<String>, advice: &str) {
        self.remark(Fate::LeftOver, line, field, problem, advice);
    }

    fn changed(&mut self, line: usize, field: &str, problem: impl Into<String>, advice: &str) {
        self.remark(Fate::Changed, line, field, problem, advice);
    }

    fn convert(mut self, source: &Node, title: &str, targets: Option<&JobTargets>) -> (Job, Vec<Remark>) {
        let mut job = Job { name: self.name.clone(), ..Job::default() };
        if title != job.name {
            let problem = format!("'{title}' is called '{}' here", job.name);
            self.changed(source.line, "name", problem, "use that name, or change it in the document");
        }
        self.describe(source, title, &mut job);
        if let Some(options) = source.get("options") {
            job.parameters = self.parameters(options);
        }
        self.nodes(source.get("nodefilters"), targets, &mut job);
        let common = self.common(source);
        if let Some(sequence) = source.get("sequence") {
            self.sequence(sequence, &common, &mut job);
        }
        self.order(source, &mut job);
        self.rest(source);
        (job, self.remarks)
    }

    fn describe(&mut self, source: &Node, title: &str, job: &mut Job) {
        let text = |key: &str| source.get(key).and_then(Node::text).unwrap_or_default();
        let description = match text("description").trim() {
            "" if title != job.name => title,
            description => description,
        };
        let short = &description[..description.floor_char_boundary(limits::DESCRIPTION_BYTES)];
        if short.len() < description.len() {
            let problem = format!("it is longer than {} bytes", limits::DESCRIPTION_BYTES);
            self.left_over(source.line, "description", problem, "keep the end of it elsewhere");
        }
        short.clone_into(&mut job.description);
        let id = match text("uuid") {
            "" => text("id"),
            uuid => uuid,
        };
        let tags = source.get("tags").map(Node::shown).unwrap_or_default();
        let pairs = [("imported", "rundeck"), ("group", text("group")), ("rundeck-id", id), ("tags", &tags)];
        job.labels = labels(pairs);
        for (key, value) in pairs {
            if !value.is_empty() && !job.labels.contains_key(key) {
                let problem = format!("'{value}' is no value of a label");
                self.left_over(source.line, key, problem, "shorten it and add the label");
            }
        }
    }

    fn nodes(&mut self, source: Option<&Node>, targets: Option<&JobTargets>, job: &mut Job) {
        job.targets = targets.cloned();
        let has_filter = |node: &&Node| {
            ["filter", "include", "exclude"].iter().any(|key| node.get(key).is_some_and(|n| !n.is_empty()))
        };
        let Some(source) = source.filter(has_filter) else {
            if targets.is_none() {
                let problem = "Rundeck runs it on its own server";
                self.remarks.push(no_hosts(self.line, Some(&self.name), "nodefilters", problem));
            }
            return;
        };
        let dispatch = source.get("dispatch");
        let setting = |key: &str| dispatch.and_then(|dispatch| dispatch.get(key));
        let exclude_wins = setting("excludePrecedence").and_then(flag).unwrap_or(true);
        match filter(source).and_then(|filter| filter.targets(exclude_wins)) {
            Ok(selected) => {
                if !selected.labels.is_empty() {
                    let names: Vec<String> = selected.labels.into_iter().collect();
                    let problem = format!(
                        "tags and attributes of nodes are labels of hosts here: {}",
                        names.join(", ")
                    );
                    let advice = "give the hosts these labels, and look with opsctl job plan";
                    self.changed(source.line, "nodefilters", problem, advice);
                }
                job.targets = Some(selected.targets);
            }
            Err(why) => {
                let advice = "add targets with a selector, or name hosts at each start";
                self.left_over(source.line, "nodefilters", why, advice);
            }
        }
        if let Some(targets) = &mut job.targets
            && setting("successOnEmptyNodeFilter").and_then(flag) == Some(true)
        {
            targets.allow_empty = true;
        }
        for (key, node) in source.entries() {
            let is_known = ["filter", "include", "exclude", "dispatch", "filterName", "excludeFilterUncheck"];
            if !is_known.contains(&key.as_str()) && !node.is_empty() {
                self.unknown(node, &format!("nodefilters.{key}"));
            }
        }
        job.rollout = Some(self.rollout(dispatch, source.line));
    }

    /// How many hosts at a time, and whether a failure keeps the rest from beginning.
    fn rollout(&mut self, dispatch: Option<&Node>, line: usize) -> Rollout {
        let mut rollout =
            Rollout { max_parallel: Some(1), max_failures: Some(Share::Hosts(0)), ..Rollout::default() };
        let mut is_said = false;
        for (key, node) in dispatch.map(Node::entries).unwrap_or_default() {
            let field = format!("nodefilters.dispatch.{key}");
            match key.as_str() {
                "threadcount" => match node.text().and_then(|text| text.trim().parse::<usize>().ok()) {
                    Some(number) => {
                        is_said = true;
                        rollout.max_parallel = Some(number.max(1));
                    }
                    None if node.is_empty() => {}
                    None => {
                        is_said = true;
                        let problem = format!("'{}' is known at a start only, so it is 1", node.shown());
                        self.left_over(node.line, &field, problem, "change rollout.max_parallel");
                    }
                },
                "keepgoing" if flag(node) == Some(true) => rollout.max_failures = None,
                "keepgoing" | "excludePrecedence" | "successOnEmptyNodeFilter" | "nodeThreadcountDynamic" => {
                }
                "rankAttribute" if node.is_empty() => {}
                "rankOrder" if node.is_empty() || node.text() == Some("ascending") => {}
                "rankAttribute" | "rankOrder" => {
                    let problem = format!("hosts have their turns by name, not by '{}'", node.shown());
                    self.left_over(
                        node.line,
                        &field,
                        problem,
                        "where that matters, make batches with selectors",
                    );
                }
                _ => self.unknown(node, &field),
            }
        }
        if !is_said {
            let problem = "it says nothing, and so Rundeck takes one node after the other";
            self.changed(
                line,
                "nodefilters.dispatch.threadcount",
                problem,
                "raise rollout.max_parallel if more may be at work",
            );
        }
        rollout
    }

    fn common(&mut self, source: &Node) -> Common {
        let mut common = Common { timeout: Some(NO_TIME_LIMIT), ..Common::default() };
        match source.get("timeout").filter(|node| !node.is_empty()) {
            Some(node) => match node.text().and_then(seconds) {
                Some(0) => {}
                Some(seconds) if limits::TIMEOUT_SECONDS.contains(&seconds) => {
                    common.timeout = Some(Length(seconds));
                    let problem = "it was of the whole job, and is of each try of each step";
                    self.changed(node.line, "timeout", problem, "lower it where steps are short");
                }
                _ => {
                    let problem = format!("'{}' is no length of time that a step can have", node.shown());
                    self.left_over(
                        node.line,
                        "timeout",
                        problem,
                        "set the timeout of the steps, which is 24 hours now",
                    );
                }
            },
            None => {
                let problem = "there is none; steps are ended after 24 hours";
                self.changed(source.line, "timeout", problem, "set the timeout that each needs");
            }
        }
        if let Some(node) = source.get("retry").filter(|node| !node.is_empty()) {
            common.retry = self.retry(node);
        }
        if let Some(node) = source.get("loglimit").filter(|node| !node.is_empty()) {
            self.log_limit(source, node, &mut common);
        }
        common
    }

    fn retry(&mut self, node: &Node) -> Option<Retry> {
        let count = node.get("retry").unwrap_or(node);
        let most = *limits::RUN_TRIES.end();
        let Some(retries) = count.text().and_then(|text| text.trim().parse::<i64>().ok()) else {
            let problem = format!("'{}' is known at a start only", count.shown());
            self.left_over(node.line, "retry", problem, "add retry to the steps");
            return None;
        };
        if retries <= 0 {
            return None;
        }
        let mut retry = Retry::of(retries.saturating_add(1).min(most));
        if retries >= most {
            let problem = format!("{retries} tries more are too many; now it is tried {most} times");
            self.left_over(node.line, "retry", problem, "nothing, if that is enough");
        }
        if let Some(delay) = node.get("delay").filter(|delay| !delay.is_empty()) {
            match delay.text().and_then(seconds).filter(|delay| limits::RETRY_BACKOFF_SECONDS.contains(delay))
            {
                Some(delay) => {
                    retry.backoff_seconds = delay;
                    retry.max_backoff_seconds = retry.max_backoff_seconds.max(delay);
                }
                None => {
                    let problem = format!("'{}' is no pause that a step can have", delay.shown());
                    self.left_over(delay.line, "retry.delay", problem, "set backoff_seconds of the steps");
                }
            }
        }
        let problem = "Rundeck begins the job anew; here each step that fails is tried again by itself";
        self.changed(node.line, "retry", problem, "remove retry from steps that must not run twice");
        Some(retry)
    }

    fn log_limit(&mut self, source: &Node, node: &Node, common: &mut Common) {
        let said = node.text().unwrap_or_default().trim().to_ascii_uppercase();
        let units = [("GB", 1_u64 << 30), ("MB", 1 << 20), ("KB", 1 << 10), ("B", 1)];
        let bytes = units
            .iter()
            .find_map(|(unit, size)| said.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*size));
        match bytes.filter(|bytes| (1..=limits::RUN_OUTPUT_BYTES).contains(bytes)) {
            Some(bytes) => {
                common.output_limit_bytes = Some(bytes);
                common.halts = source.get("loglimitAction").and_then(Node::text) != Some("truncate");
                let problem = "it was of all output together, and is of each run";
                self.changed(node.line, "loglimit", problem, "lower output_limit_bytes if that is too much");
            }
            None => {
                let problem =
                    format!("'{}' is no number of bytes that a run's output can be limited to", node.shown());
                self.left_over(node.line, "loglimit", problem, "set output_limit_bytes of the steps");
            }
        }
        if let Some(status) =
            source.get("loglimitStatus").filter(|node| !matches!(node.text(), None | Some("failed")))
        {
            let problem = format!("a run that is ended there has failed; '{}' is no state", status.shown());
            self.left_over(status.line, "loglimitStatus", problem, "nothing");
        }
    }

    /// Whether all hosts end a step before the next. Where there is a limit to hosts at work, that counts more.
    fn order(&mut self, source: &Node, job: &mut Job) {
        let strategy = source.get("sequence").and_then(|sequence| sequence.get("strategy"));
        let Some(node) = strategy.filter(|node| !node.is_empty()) else { return };
        match node.text().unwrap_or_default() {
            "node-first" => {}
            "step-first" | "sequential" if job.steps.len() < 2 => {}
            "step-first" | "sequential" => match &job.rollout {
                Some(Rollout { max_parallel: Some(number), .. }) => {
                    let problem = format!(
                        "by steps all hosts are at work at once, and only {number} may be: each goes through all steps by itself"
                    );
                    let advice = "if all hosts have to end a step first, say order: step and remove rollout.max_parallel";
                    self.left_over(node.line, "sequence.strategy", problem, advice);
                }
                _ => job.order = Order::Step,
            },
            "parallel" => {
                for step in job.steps.iter_mut().filter(|step| step.needs.is_none()) {
                    step.needs = Some(Vec::new());
                }
            }
            other => {
                let problem =
                    format!("'{other}' is not known here: each host goes through the steps in sequence");
                self.left_over(
                    node.line,
                    "sequence.strategy",
                    problem,
                    "say with needs and if what waits for what",
                );
            }
        }
    }

    fn sequence(&mut self, sequence: &Node, common: &Common, job: &mut Job) {
        let keeps_going = sequence.get("keepgoing").and_then(flag) == Some(true);
        for (index, command) in
            sequence.get("commands").map(Node::items).unwrap_or_default().iter().enumerate()
        {
            let steps = self.command(command, &format!("sequence.commands[{index}]"), index + 1);
            job.steps.extend(steps.into_iter().map(|step| with(step, common, keeps_going)));
        }
        for (key, node) in sequence.entries() {
            if !["keepgoing", "strategy", "commands"].contains(&key.as_str()) && !node.is_empty() {
                self.unknown(node, &format!("sequence.{key}"));
            }
        }
    }

    /// Says of all else what it is.
    fn rest(&mut self, source: &Node) {
        for (key, node) in source.entries() {
            match key.as_str() {
                "name" | "group" | "description" | "id" | "uuid" | "tags" | "options" | "nodefilters"
                | "timeout" | "retry" | "loglimit" | "loglimitAction" | "loglimitStatus" | "sequence" => {}
                "loglevel" if !matches!(node.text(), None | Some("INFO" | "WARN" | "ERROR")) => {
                    let problem = format!("'{}' has told more of what Rundeck does", node.shown());
                    self.left_over(node.line, key, problem, "nothing: all output of a step is kept");
                }
                key if OF_NO_INTEREST.contains(&key) || node.is_empty() => {}
                "schedule" | "schedules" => self.schedule(source, node, key),
                "notification" => self.notifications(node),
                "notifyAvgDurationThreshold" => {
                    self.left_over(
                        node.line,
                        key,
                        "there are no notifications yet",
                        "follow the event stream",
                    );
                }
                "executionEnabled" if flag(node) == Some(false) => {
                    let problem = "the job is switched off there, and can be started here";
                    self.left_over(node.line, key, problem, "do not apply it, or bind rights to others");
                }
                "nodesSelectedByDefault" if flag(node) == Some(false) => {
                    let problem = "there somebody has to choose among the hosts at each start";
                    self.left_over(node.line, key, problem, "remove targets, so that each start names hosts");
                }
                "multipleExecutions" if flag(node) == Some(true) => {}
                "multipleExecutions" | "maxMultipleExecutions" => {
                    let problem = "nothing keeps a job from being started while it runs";
                    self.left_over(
                        node.line,
                        key,
                        problem,
                        "take a lock in a step (flock) where that matters",
                    );
                }
                "orchestrator" => {
                    let problem = format!("it chooses and orders nodes: {}", node.shown());
                    self.left_over(node.line, key, problem, "say it with rollout and targets.limit");
                }
                "plugins" if node.entries().iter().all(|(_, plugin)| plugin.is_empty()) => {}
                "executionEnabled" | "nodesSelectedByDefault" => {}
                _ => self.unknown(node, key),
            }
        }
    }

    fn unknown(&mut self, node: &Node, field: &str) {
        let mut shown = node.shown();
        shown.truncate(shown.floor_char_boundary(200));
        let problem = format!("there is nothing like it: {shown}");
        self.left_over(node.line, field, problem, "look whether the job needs it");
    }

    fn schedule(&mut self, source: &Node, node: &Node, key: &str) {
        let zone = source.get("timeZone").and_then(Node::text).filter(|zone| !zone.is_empty());
        let zone = zone.unwrap_or("of Rundeck's server");
        let off = match source.get("scheduleEnabled").and_then(flag) {
            Some(false) => ", switched off",
            _ => "",
        };
        for one in node.items() {
            let problem = match quartz(one) {
                Some(quartz) => match cron(&quartz) {
                    Some(cron) => format!(
                        "'{cron}' (time zone: {zone}{off}; in Rundeck '{quartz}'): jobs have no schedules yet"
                    ),
                    None => {
                        format!(
                            "'{quartz}' in Quartz's form (time zone: {zone}{off}), which cron has no form for: jobs have no schedules yet"
                        )
                    }
                },
                None => format!("{} (time zone: {zone}{off}): jobs have no schedules yet", one.shown()),
            };
            let advice = format!("until they have, let a cron call: opsctl run {}", self.name);
            self.left_over(one.line, key, problem, &advice);
        }
    }

    fn notifications(&mut self, node: &Node) {
        for (event, kinds) in node.entries() {
            for kind in kinds.items() {
                for (name, what) in kind.entries() {
                    let field = format!("notification.{event}.{name}");
                    let problem = format!("there are no notifications yet: {}", what.shown());
                    self.left_over(
                        what.line,
                        &field,
                        problem,
                        "follow the event stream, and notify from there",
                    );
                }
            }
        }
    }
}

/// The step with what all have. A failure that the steps behind do not wait for counts as done.
fn with(mut step: Step, common: &Common, keeps_going: bool) -> Step {
    step.timeout = common.timeout;
    step.retry.clone_from(&common.retry);
    step.output_limit_bytes = common.output_limit_bytes;
    if common.halts {
        step.on_output_limit = model::command::OutputLimit::Halt;
    }
    if keeps_going {
        step.on_failure = OnFailure::Continue;
    }
    step
}

fn filter(source: &Node) -> Result<Filter, String> {
    let mut filter = Filter::default();
    if let Some(text) = source.get("filter").and_then(Node::text) {
        filter.add_text(text)?;
    }
    if let Some(text) =
        source.get("filterExclude").and_then(Node::text).filter(|text| !text.trim().is_empty())
    {
        return Err(format!("filterExclude has no form in a selector yet: {text}"));
    }
    for (key, is_wanted) in [("include", true), ("exclude", false)] {
        for (attribute, value) in source.get(key).map(Node::entries).unwrap_or_default() {
            if let Some(value) = value.text().filter(|value| !value.is_empty()) {
                filter.add(is_wanted, attribute, value);
            }
        }
    }
    Ok(filter)
}

fn flag(node: &Node) -> Option<bool> {
    match node.text()?.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" => Some(true),
        "false" | "no" => Some(false),
        _ => None,
    }
}

/// `120`, `6h 30m` and the like.
fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(seconds.into());
    }
    let mut total = 0_i64;
    let mut number = String::new();
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

/// The seven fields of a schedule in Quartz's form.
fn quartz(node: &Node) -> Option<String> {
    if let Some(text) = node.get("crontab").and_then(Node::text) {
        return Some(text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let said = |path: &[&str]| {
        let found = path.iter().try_fold(node, |node, key| node.get(key))?;
        found.text().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let time = |key: &str| said(&["time", key]).unwrap_or_else(|| "0".to_owned());
    said(&["time", "hour"]).or_else(|| said(&["time", "minute"]))?;
    let (weekday, day) = (said(&["weekday", "day"]), said(&["dayofmonth", "day"]));
    let day = day.unwrap_or_else(|| if weekday.is_some() { "?" } else { "*" }.to_owned());
    let weekday = weekday.unwrap_or_else(|| "?".to_owned());
    let any = || "*".to_owned();
    let month = said(&["month"]).unwrap_or_else(any);
    let year = said(&["year"]).unwrap_or_else(any);
    Some([time("seconds"), time("minute"), time("hour"), day, month, weekday, year].join(" "))
}

/// The same with the five fields of cron, where it has a form there.
fn cron(quartz: &str) -> Option<String> {
    const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let fields: Vec<&str> = quartz.split_whitespace().collect();
    let (["0" | "00", minute, hour, day, month, weekday]
    | ["0" | "00", minute, hour, day, month, weekday, "*" | ""]) = fields.as_slice()
    else {
        return None;
    };
    // 1 is Sunday there. What stands behind a slash is a step.
    let weekday = weekday
        .split(',')
        .map(|part| {
            let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
            let ends: Option<Vec<String>> = span
                .split('-')
                .map(|end| match end.parse::<usize>() {
                    Ok(number) => Some((*DAYS.get(number.checked_sub(1)?)?).to_owned()),
                    Err(_) => Some(end.to_owned()),
                })
                .collect();
            let span = ends?.join("-");
            Some(step.map_or_else(|| span.clone(), |step| format!("{span}/{step}")))
        })
        .collect::<Option<Vec<_>>>()?
        .join(",");
    let fields =
        [minute, hour, day, month, weekday.as_str()].map(|field| if field == "?" { "*" } else { field });
    // Last days, working days and the second Tuesday are Quartz's alone.
    let is_cron = |field: &str| {
        let words = field.split(|c: char| !c.is_ascii_alphanumeric());
        !field.contains('#')
            && words.into_iter().all(|word| {
                !matches!(word.trim_start_matches(|c: char| c.is_ascii_digit()), "L" | "W" | "LW")
            })
    };
    fields.iter().all(|field| is_cron(field)).then(|| fields.join(" "))
}

#[cfg(test)]
mod tests;
