//! Secrets that people hand in: from a file, from stdin, or typed without echo on the terminal.
//!
//! Stdin is read once: a token and a password cannot both come from it.

use std::{
    fs::File,
    io::{IsTerminal as _, Read},
    path::Path,
};

use anyhow::{Context as _, Result};
use model::api::auth::Secret;

use crate::{
    context::{Token, read_token},
    exit::Usage,
};

/// Bytes of a file with secrets.
const SECRET_BYTES: u64 = 16 * 1024;

/// A token from the file, else what `given` has, else from stdin.
///
/// # Errors
/// When it cannot be read, or is none.
pub(crate) fn token(what: &str, file: Option<&Path>, given: Option<&str>) -> Result<Token> {
    if let Some(file) = file {
        return Ok(read_token(file)?);
    }
    if let Some(given) = given {
        return Ok(Token::parse(given)?);
    }
    let text = if std::io::stdin().is_terminal() {
        type_in(&format!("{what}: "), "--token-file")?
    } else {
        read(Path::new("-")).with_context(|| format!("cannot read the {what} from stdin"))?
    };
    Ok(Token::parse(&text)?)
}

/// A password: the first line of the file, else typed in.
///
/// # Errors
/// When it cannot be read, or there is no terminal to ask on.
pub(crate) fn password(prompt: &str, file: Option<&Path>) -> Result<Secret> {
    match file {
        Some(file) => {
            let [password] = lines(file)?;
            Ok(password)
        }
        None => Ok(Secret::new(type_in(prompt, "--password-file")?)),
    }
}

/// A password that somebody chooses, typed twice where it is typed.
///
/// # Errors
/// As [`password`], and when the two are not the same.
pub(crate) fn new_password(prompt: &str, file: Option<&Path>) -> Result<Secret> {
    let first = password(prompt, file)?;
    if file.is_none() && type_in("The same again: ", "--password-file")? != first.expose() {
        return Err(Usage("the two passwords differ".to_owned()).into());
    }
    Ok(first)
}

/// The password that somebody has and the one that he chooses: two lines of the file, else typed in.
///
/// # Errors
/// As [`new_password`].
pub(crate) fn old_and_new(file: Option<&Path>) -> Result<(Secret, Secret)> {
    match file {
        Some(file) => {
            let [old, new] = lines(file)?;
            Ok((old, new))
        }
        None => Ok((password("Password as it is: ", None)?, new_password("New password: ", None)?)),
    }
}

/// The code of a second factor, typed in; `None` where there is no terminal to ask on.
pub(crate) fn code() -> Option<Secret> {
    type_in("Code of the second factor: ", "--code").ok().map(|code| Secret::new(code.trim()))
}

/// Asks on the terminal, which need not be stdin.
fn type_in(prompt: &str, instead: &str) -> Result<String> {
    rpassword::prompt_password(prompt).map_err(|_| {
        let what = prompt.trim_end_matches([':', ' ']);
        Usage(format!("there is no terminal to ask for it ({what}); use {instead}")).into()
    })
}

fn lines<const N: usize>(path: &Path) -> Result<[Secret; N]> {
    let text = read(path)
        .map_err(|error| Usage(format!("cannot read the password file {}: {error}", path.display())))?;
    first_lines(&text).ok_or_else(|| {
        let lines =
            if N == 1 { "line".to_owned() } else { format!("{N} lines: the old password and the new one") };
        Usage(format!("the password file {} must have {lines}", path.display())).into()
    })
}

fn first_lines<const N: usize>(text: &str) -> Option<[Secret; N]> {
    let lines: Vec<Secret> = text.lines().take(N).filter(|line| !line.is_empty()).map(Secret::new).collect();
    lines.try_into().ok()
}

/// All of a file, or of stdin with `-`.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(SECRET_BYTES).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(SECRET_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_lines() {
        let expose = |secrets: [Secret; 2]| secrets.map(|secret| secret.expose().to_owned());
        assert_eq!(
            first_lines(" old one \r\nnew\nmore\n").map(expose),
            Some([" old one ".into(), "new".into()])
        );
        assert_eq!(first_lines::<1>("\n"), None);
        assert_eq!(first_lines::<2>("old\n"), None);
        assert_eq!(first_lines::<2>("old\n\nnew\n"), None);
    }
}
