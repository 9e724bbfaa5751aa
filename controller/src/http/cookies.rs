//! The browser's credential: two cookies that no script can read, and only our own pages may use.
//!
//! `__Host-` makes browsers insist on `Secure`, the whole host and no other host. `SameSite=Strict` keeps them from being sent
//! with requests that other sites cause; that is checked here once more.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use model::limits;

use crate::error::{Error, Result};

pub(super) const ACCESS: &str = "__Host-opsc-access";
pub(super) const REFRESH: &str = "__Host-opsc-refresh";

/// What a browser keeps while a person is at an OpenID provider.
pub(super) const LOGIN: &str = "__Host-opsc-login";

/// The value of a cookie, if it was sent once.
pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = all
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Sets a cookie; an empty value removes it.
pub(super) fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    put(headers, name, value, limits::SESSION_LIFE, "Strict");
}

/// Sets [`LOGIN`], or removes it. A provider sends the browser back to us: it has to come along from another site's page.
pub(super) fn set_login(headers: &mut HeaderMap, value: &str) {
    put(headers, LOGIN, value, limits::OIDC_LOGIN_WITHIN, "Lax");
}

fn put(headers: &mut HeaderMap, name: &str, value: &str, life: Duration, same_site: &str) {
    let seconds = if value.is_empty() { 0 } else { life.as_secs() };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite={same_site}");
    // What a browser brought may be anything.
    if let Ok(text) = HeaderValue::from_str(&text) {
        headers.append(header::SET_COOKIE, text);
    }
}

/// A request with a cookie has to come from a page of ours: by what the browser says of its site, or by its origin.
///
/// # Errors
/// [`Error::BadCredential`] when it does not, or says nothing.
pub(super) fn from_our_own_pages(parts: &Parts) -> Result<()> {
    let refused = || {
        Error::BadCredential("a request with a cookie has to come from a page of this controller".to_owned())
    };
    let text = |name: header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site"))
        && site != "same-origin"
        // Typed by a person, or from a bookmark: nobody's page caused it.
        && !(site == "none" && parts.method.is_safe())
    {
        return Err(refused());
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) if origin.split_once("://").is_some_and(|(_, of)| of == host) => Ok(()),
        (Some(_), _) => Err(refused()),
        // Browsers say where a request comes from in one of the two ways, whenever it may change something.
        (None, _) if parts.headers.contains_key("sec-fetch-site") || parts.method.is_safe() => Ok(()),
        (None, _) => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn is_ours(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request =
            Request::builder().method(method).uri("/api/v1/x").header("host", "ops.example:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        from_our_own_pages(&request.body(()).expect("a request").into_parts().0).is_ok()
    }

    #[test]
    fn other_sites_pages_cannot_use_the_cookie() {
        let own = ("origin", "https://ops.example:8080");
        for (method, headers, want) in [
            ("POST", &[own][..], true),
            ("POST", &[own, ("sec-fetch-site", "same-origin")], true),
            ("POST", &[("sec-fetch-site", "same-origin")], true),
            ("GET", &[], true),
            ("GET", &[("sec-fetch-site", "none")], true),
            ("POST", &[], false),
            ("POST", &[("sec-fetch-site", "none")], false),
            ("POST", &[own, ("sec-fetch-site", "cross-site")], false),
            ("POST", &[("sec-fetch-site", "same-site")], false),
            ("GET", &[("sec-fetch-site", "cross-site")], false),
            ("POST", &[("origin", "https://evil.example")], false),
            ("POST", &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], false),
            ("POST", &[("origin", "null")], false),
            ("GET", &[("origin", "https://ops.example")], false),
            ("DELETE", &[("origin", "https://ops.example:8080.evil.example")], false),
        ] {
            assert_eq!(is_ours(method, headers), want, "{method} {headers:?}");
        }
    }

    #[test]
    fn a_cookie_that_comes_twice_is_none() {
        let headers = |texts: &[&str]| {
            texts.iter().map(|text| (header::COOKIE, text.parse().expect("a header"))).collect::<HeaderMap>()
        };
        assert_eq!(read(&headers(&["a=1; b=2"]), "b").as_deref(), Some("2"));
        assert_eq!(read(&headers(&["a=1; a=2"]), "a"), None);
        assert_eq!(read(&headers(&["a="]), "a"), None);
        assert_eq!(read(&headers(&[]), "a"), None);
    }
}
