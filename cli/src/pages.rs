//! Lists of the API, which come page by page.

use std::marker::PhantomData;

use model::{api::Page, limits};
use serde::de::DeserializeOwned;

use crate::client::{Client, Error};

/// A list that is fetched as it is read.
#[derive(Debug)]
pub(crate) struct Pages<'a, T> {
    client: &'a Client,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    cursor: Option<String>,
    /// Items that are still wanted; `None` means all.
    left: Option<u64>,
    done: bool,
    items: PhantomData<T>,
}

impl<'a, T: DeserializeOwned> Pages<'a, T> {
    /// Up to `limit` items of the list at `path`.
    pub(crate) fn new(
        client: &'a Client,
        path: &[&str],
        query: Vec<(&'static str, String)>,
        limit: Option<u64>,
    ) -> Self {
        let path = path.iter().map(|&segment| segment.to_owned()).collect();
        Self { client, path, query, cursor: None, left: limit, done: false, items: PhantomData }
    }

    /// The next page, or `None` behind the last.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<T>>, Error> {
        if self.done || self.left == Some(0) {
            return Ok(None);
        }
        let largest = u64::try_from(limits::MAX_PAGE).expect("a page has a positive size");
        let size = self.left.map_or(largest, |left| left.min(largest));
        let mut query = self.query.clone();
        query.push(("limit", size.to_string()));
        query.extend(self.cursor.take().map(|cursor| ("cursor", cursor)));
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let page: Page<T> = self.client.get(&path, &query).await?;
        self.cursor = page.next_cursor;
        self.done = self.cursor.is_none();
        let mut items = page.items;
        if let Some(left) = &mut self.left {
            items.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= items.len() as u64;
        }
        Ok(Some(items))
    }

    /// All of it at once.
    ///
    /// # Errors
    /// As every request.
    pub(crate) async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(items) = self.next().await? {
            all.extend(items);
        }
        Ok(all)
    }
}
