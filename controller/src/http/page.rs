//! Pages of lists: an opaque cursor says where the next one begins.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{api::Page, limits};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::problem::{Failure, Result};

/// What a cursor says: of which list it is, and behind what to go on.
#[derive(Serialize, Deserialize)]
struct Cursor<A> {
    list: String,
    after: A,
}

/// Where a page begins and how long it is.
#[derive(Debug)]
pub(super) struct Window<A> {
    list: &'static str,
    pub(super) after: Option<A>,
    size: i64,
}

impl<A: Serialize + DeserializeOwned> Window<A> {
    /// Reads the parameters of a page of `list`.
    pub(super) fn new(list: &'static str, cursor: Option<&str>, limit: Option<i64>) -> Result<Self> {
        Ok(Self { list, after: cursor.map(|text| decode(list, text)).transpose()?, size: size(limit)? })
    }

    /// How many rows to ask for: one more than the page holds tells whether there is another page.
    pub(super) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// Cuts the rows to the page; `key` is what the cursor remembers of a row.
    pub(super) fn page<T>(&self, mut rows: Vec<T>, key: impl FnOnce(&T) -> A) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(self.list, &key(last)));
        Page { items: rows, next_cursor }
    }
}

/// The size of a page.
pub(super) fn size(limit: Option<i64>) -> Result<i64> {
    match limit.unwrap_or(limits::DEFAULT_PAGE) {
        limit @ 1..=limits::MAX_PAGE => Ok(limit),
        _ => Err(Failure::invalid("limit", format!("must be from 1 to {} (MAX_PAGE)", limits::MAX_PAGE))),
    }
}

fn encode<A: Serialize>(list: &str, after: &A) -> String {
    let cursor = Cursor { list: list.to_owned(), after };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).expect("ids and names become JSON"))
}

fn decode<A: DeserializeOwned>(list: &str, text: &str) -> Result<A> {
    let cursor =
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|json| serde_json::from_slice::<Cursor<A>>(&json).ok());
    match cursor {
        Some(cursor) if cursor.list == list => Ok(cursor.after),
        _ => Err(Failure::invalid("cursor", format!("is not a cursor of the list of {list}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_on_where_the_page_ended() {
        let window = Window::<String>::new("agents", None, Some(2)).expect("valid");
        assert_eq!(window.limit(), 3);
        let page = window.page(vec!["a", "b", "c"], |name| (*name).to_owned());
        assert_eq!(page.items, ["a", "b"]);
        let next = Window::<String>::new("agents", page.next_cursor.as_deref(), None).expect("valid");
        assert_eq!(next.after.as_deref(), Some("b"));
        assert!(next.page(vec!["c"], |name| (*name).to_owned()).next_cursor.is_none());
    }

    #[test]
    fn wrong_cursors_and_sizes_are_refused() {
        let foreign = encode("executions", &"b".to_owned());
        for cursor in ["", "nonsense", "e30", &foreign] {
            let failure = Window::<String>::new("agents", Some(cursor), None).expect_err(cursor);
            assert_eq!(failure.problem("r1").field.as_deref(), Some("cursor"));
        }
        for limit in [0, -1, limits::MAX_PAGE + 1, 1_000_000_000, i64::MAX] {
            let problem = size(Some(limit)).expect_err("out of range").problem("r1");
            assert_eq!(problem.field.as_deref(), Some("limit"));
            assert!(problem.detail.contains("MAX_PAGE"), "{}", problem.detail);
        }
    }
}
