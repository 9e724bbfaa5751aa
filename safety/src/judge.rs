//! Holds one command against the rules.

use super::{
    call::{Call, Sorted},
    rules::{Book, Rule},
    word::{HOME, MAYBE, QUESTION, SOME, STAR, Word},
};

/// The rules that hit a command.
pub(super) fn judge<'b>(book: &'b Book, call: &Call) -> Vec<&'b Rule> {
    let sorted = call.sorted();
    let named = book.by_command.get(&call.name).into_iter().flatten();
    let general = book.by_command.get("").into_iter().flatten();
    let mut hits: Vec<usize> =
        named.chain(general).copied().filter(|i| hits(book, &book.rules[*i], call, &sorted)).collect();
    hits.sort_unstable();
    hits.dedup();
    hits.into_iter().map(|i| &book.rules[i]).collect()
}

fn hits(book: &Book, rule: &Rule, call: &Call, sorted: &Sorted<'_>) -> bool {
    if rule.fork_bomb || !rule.names(&call.name) {
        return false;
    }
    let has = |flag: &String| sorted.flags.contains(flag);
    if !rule.flags.iter().all(|group| group.iter().any(has)) || rule.without.iter().any(has) {
        return false;
    }
    if !rule.verbs.is_empty() && !rule.verbs.iter().any(|v| begins(&sorted.operands, v)) {
        return false;
    }
    if !rule.at.is_empty() && !operands_at(book, rule, sorted) {
        return false;
    }
    if !rule.writes.is_empty() && !call.writes.iter().any(|t| is_at(book, &rule.writes, &t.file, false)) {
        return false;
    }
    if !rule.overwrites.is_empty()
        && !call.writes.iter().any(|t| !t.append && is_at(book, &rule.overwrites, &t.file, false))
    {
        return false;
    }
    if !rule.reads.is_empty() && !rule.reads.iter().any(|r| call.sources.contains(r)) {
        return false;
    }
    if !rule.given.is_empty() && !call.words.iter().flat_map(|w| &w.names).any(|n| rule.given.contains(n)) {
        return false;
    }
    let patterns = &rule.patterns;
    if patterns.arguments.is_some() || patterns.unless.is_some() {
        let arguments = call.arguments();
        if patterns.arguments.as_ref().is_some_and(|p| !p.is_match(&arguments))
            || patterns.unless.as_ref().is_some_and(|p| p.is_match(&arguments))
        {
            return false;
        }
    }
    if let Some(statement) = &patterns.statement {
        let texts = call.words.iter().map(Word::plain).chain(call.input.clone());
        let found = texts.into_iter().any(|text| {
            text.split(';').any(|part| {
                statement.is_match(part)
                    && !patterns.statement_unless.as_ref().is_some_and(|p| p.is_match(part))
            })
        });
        if !found {
            return false;
        }
    }
    true
}

/// Whether the first operands are these words.
pub(super) fn begins(operands: &[&Word], verb: &str) -> bool {
    let mut operands = operands.iter();
    verb.split(' ').all(|choice| operands.next().is_some_and(|o| choice.split('|').any(|c| c == o.value)))
}

fn operands_at(book: &Book, rule: &Rule, sorted: &Sorted<'_>) -> bool {
    let operands = if rule.last {
        sorted.operands.iter().rev().take(1)
    } else {
        sorted.operands.iter().rev().take(usize::MAX)
    };
    operands.into_iter().any(|operand| match &rule.prefix {
        None => is_at(book, &rule.at, operand, rule.when_empty),
        Some(prefix) => operand.value.strip_prefix(prefix.as_str()).is_some_and(|rest| {
            let stripped = Word { value: rest.to_owned(), ..Word::default() };
            is_at(book, &rule.at, &stripped, rule.when_empty)
        }),
    })
}

/// Whether the word names one of the places; with `when_empty` only if it does so because its variables are empty.
fn is_at(book: &Book, places: &[String], word: &Word, when_empty: bool) -> bool {
    if when_empty && !word.value.contains(MAYBE) {
        return false;
    }
    alternatives(&word.value).iter().any(|value| {
        let value = if when_empty { value.replace(MAYBE, "") } else { value.clone() };
        let Some(path) = normal(&value) else { return false };
        places.iter().filter_map(|p| book.places.get(p)).flatten().any(|place| matches(&path, place))
    })
}

/// `{a,b}` without nesting, at most 64 words.
fn alternatives(value: &str) -> Vec<String> {
    let mut done = vec![value.to_owned()];
    for _ in 0..4 {
        let Some(index) = done.iter().position(|v| split(v).is_some()) else { break };
        let Some((head, choices, tail)) = split(&done[index]) else { break };
        let mut next: Vec<String> = choices.iter().map(|c| format!("{head}{c}{tail}")).collect();
        next.extend(done.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, v)| v.clone()));
        next.truncate(64);
        done = next;
    }
    done
}

fn split(value: &str) -> Option<(String, Vec<String>, String)> {
    let open = value.find('{')?;
    let close = open + value[open..].find('}')?;
    let inner = &value[open + 1..close];
    inner.contains(',').then(|| {
        (
            value[..open].to_owned(),
            inner.split(',').map(str::to_owned).collect(),
            value[close + 1..].to_owned(),
        )
    })
}

/// A path without `.`, `..`, doubled slashes, and without a last `/*` that means all in it. `None` when it is no
/// absolute path, nor one in a home folder.
fn normal(value: &str) -> Option<String> {
    if value.starts_with(HOME) {
        let rest: String = value.chars().skip(1).collect();
        let mut parts = fold(&rest);
        trim_globs(&mut parts);
        return Some(parts.iter().fold(String::from("~"), |path, part| path + "/" + part));
    }
    let rest = value.strip_prefix('/')?;
    let mut parts = fold(rest);
    trim_globs(&mut parts);
    Some(if parts.is_empty() {
        "/".to_owned()
    } else {
        parts.iter().fold(String::new(), |path, part| path + "/" + part)
    })
}

fn fold(rest: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

fn trim_globs(parts: &mut Vec<&str>) {
    let all =
        |part: &&str| part.contains(STAR) && part.chars().all(|c| c == STAR || c == '.' || c == QUESTION);
    while parts.last().is_some_and(all) {
        parts.pop();
    }
}

/// Whether a path is the place: `*` in a place stands for any part of a name, globs in a path for what they could match.
fn matches(path: &str, place: &str) -> bool {
    let (path, place): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), place.split('/').collect());
    if place.last() == Some(&"**") {
        let stem = &place[..place.len() - 1];
        return path.len() > stem.len() && path.iter().zip(stem).all(|(a, b)| same(a, b));
    }
    path.len() == place.len() && path.iter().zip(&place).all(|(a, b)| same(a, b))
}

fn same(part: &str, place: &str) -> bool {
    if part == place {
        return true;
    }
    if part.contains([STAR, QUESTION]) && !place.contains('*') {
        // Only a pattern with something of its own: `/e*` is meant for `/etc`.
        return glob(&part.chars().collect::<Vec<_>>(), &place.chars().collect::<Vec<_>>());
    }
    if place.contains('*') && !part.is_empty() && !part.starts_with([SOME, MAYBE]) {
        let pattern: Vec<char> = place.chars().map(|c| if c == '*' { STAR } else { c }).collect();
        return glob(&pattern, &part.chars().collect::<Vec<_>>());
    }
    false
}

/// Matches a name against a pattern of `*` and `?`, in the time of their product.
fn glob(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(&STAR) => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == QUESTION || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == STAR)
}
