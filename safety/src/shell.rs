//! The parser's door: which texts are let in, and how it is run.

use brush_parser::{ParserOptions, Token, ast::Program, parse_tokens, uncached_tokenize_str};

/// Longest text that is parsed, in bytes.
pub(super) const TEXT_BYTES: usize = 128 * 1024;
/// Most brackets and words that open something. They bound how deep the parser can go.
const OPENERS: usize = 4_000;
/// Tokens that the parser may have to read in all, see [`effort`].
const EFFORT: usize = 1 << 20;
/// The stack of the thread that parses, in bytes: of it only what is touched takes memory.
const STACK_BYTES: usize = 128 * 1024 * 1024;

/// Why a text has no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    TooLarge,
    Unparsable,
}

/// Runs `f` with a stack deep enough for every text that [`parse`] lets in. `None` when it panicked, or when the host
/// gives no thread.
pub(super) fn with_stack<T: Send>(f: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("shell".to_owned()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, f).ok()?.join().ok()
    })
}

/// Parses a text of POSIX sh or bash.
pub(super) fn parse(text: &str) -> Result<Program, Refused> {
    if text.len() > TEXT_BYTES || openers(text) > OPENERS {
        return Err(Refused::TooLarge);
    }
    if text.contains('\0') || !has_plain_delimiters(text) {
        return Err(Refused::Unparsable);
    }
    // The parser has expectations of its own that a hostile text may break.
    std::panic::catch_unwind(|| tree(text)).unwrap_or(Err(Refused::Unparsable))
}

fn tree(text: &str) -> Result<Program, Refused> {
    let options = ParserOptions::default();
    let tokens =
        uncached_tokenize_str(text, &options.tokenizer_options()).map_err(|_| Refused::Unparsable)?;
    if effort(&tokens) > EFFORT {
        return Err(Refused::TooLarge);
    }
    parse_tokens(&tokens, &options).map_err(|_| Refused::Unparsable)
}

/// How many tokens the parser may have to read, over and over, to find that a text has an error: what stands in
/// parentheses or a `case` is read twice, on each level. It is never less than that: what closes nothing that is open,
/// or stands where it may not be a keyword, closes nothing here.
fn effort(tokens: &[Token]) -> usize {
    let mut open: Vec<char> = Vec::new();
    let mut effort: usize = 0;
    let mut command = true;
    for token in tokens {
        let text = token.to_str();
        let operator = matches!(token, Token::Operator(..));
        let keyword = !operator && command;
        match text {
            "(" if operator => open.push('('),
            "case" if keyword => open.push('c'),
            ")" if operator && open.last() == Some(&'(') => drop(open.pop()),
            "esac" if keyword && open.last() == Some(&'c') => drop(open.pop()),
            _ => {}
        }
        let levels = u32::try_from(open.len()).unwrap_or(u32::MAX);
        effort = effort.saturating_add(1_usize.checked_shl(levels).unwrap_or(usize::MAX));
        command = operator || REOPENS.contains(&text);
    }
    effort
}

/// Words behind which a command begins.
const REOPENS: [&str; 14] =
    ["if", "then", "elif", "else", "while", "until", "do", "{", "}", "!", "time", "coproc", "fi", "done"];

fn openers(text: &str) -> usize {
    let brackets = text.bytes().filter(|b| matches!(b, b'(' | b'{' | b'`')).count();
    let words = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '!' && c != '[')
        .filter(|w| {
            matches!(
                *w,
                "if" | "while" | "until" | "for" | "case" | "select" | "!" | "[[" | "coproc" | "time"
            )
        })
        .count();
    brackets + words
}

/// Whether all here-documents, and all that looks like one in quotes or arithmetic, end at a plain word, which may be quoted
/// whole and stands behind one blank at most. The tokenizer takes some others (`<<''`, `<<f$( )`, in `$(…)` also `<<  E`) for
/// an empty word, and at an end of the text that follows it finds that word for ever, until all memory is taken.
fn has_plain_delimiters(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:=+*/%^!?@".contains(c);
    let mut rest = text;
    while let Some(at) = rest.find("<<") {
        let behind = rest[at..].trim_start_matches('<');
        let angles = rest[at..].len() - behind.len();
        rest = behind;
        match angles {
            2 => {}
            3 => continue,
            _ => return false,
        }
        let word = behind.strip_prefix('-').unwrap_or(behind);
        let word = word.strip_prefix([' ', '\t']).unwrap_or(word);
        let (quote, word) = match word.chars().next() {
            Some(quote @ ('\'' | '"')) => (Some(quote), &word[1..]),
            Some('\\') => (None, &word[1..]),
            _ => (None, word),
        };
        let end = word.trim_start_matches(is_plain);
        let end = match quote {
            Some(quote) if end.starts_with(quote) => &end[1..],
            Some(_) => return false,
            None => end,
        };
        let ends =
            end.is_empty() || end.starts_with(|c: char| c.is_ascii_whitespace() || ";|&)<>".contains(c));
        if !word.starts_with(is_plain) || !ends {
            return false;
        }
    }
    // The operator may not be cut by a line that goes on, either.
    !text.contains("<\\\n")
}
