//! A step in which the controller asks a web server something, once for all hosts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::{
    Plan, Work,
    context::{Context, Names},
    template::{Quote, bind, check_template, has_tags, render_bound, used},
};
use crate::{Invalid, command::within, limits, retry::Retry};

/// What such a step tells later ones.
pub(super) const TOLD: [&str; 2] = ["status", "body"];
/// Headers that belong to the connection, or that we set ourselves.
const OWN_HEADERS: [&str; 6] =
    ["host", "content-length", "connection", "transfer-encoding", "upgrade", "proxy-authorization"];

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(default)]
    pub method: Method,
    /// `https://…` or `http://…`. Values that are filled in are percent-encoded.
    pub url: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What is sent, as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What is sent, as JSON: whatever is filled into its texts stays text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub json: Option<Value>,
    /// The statuses that are a success; by default each from 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<u16>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// The name that the wire uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it changes nothing at the server (RFC 9110, 9.2.1): nobody minds a second one.
    const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// A request as it is frozen in a plan, with when it is given up and tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    pub http: Http,
    /// How long one try may take.
    pub timeout_seconds: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// It may be asked again when nobody knows whether it was heard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
}

impl HttpCall {
    /// Whether it may be sent once more when nobody knows what became of it.
    pub const fn may_repeat(&self) -> bool {
        self.idempotent || self.http.method.is_safe()
    }

    /// Tries in all.
    pub fn tries(&self) -> u32 {
        self.retry.as_ref().map_or(1, |retry| u32::try_from(retry.attempts).unwrap_or(1))
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        within("timeout", self.timeout_seconds, &limits::STEP_HTTP_SECONDS)?;
        match &self.retry {
            Some(retry) => retry
                .validate()
                .map_err(|invalid| Invalid::new(invalid.field.replacen("command.", "", 1), invalid.problem)),
            None => Ok(()),
        }
    }
}

impl Plan {
    /// The request of the step at `place`, if it makes one.
    pub fn http_call(&self, place: usize) -> Option<&HttpCall> {
        match &self.steps.get(place)?.work {
            Work::Http(call) => Some(call),
            _ => None,
        }
    }
}

/// A request that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

impl Http {
    /// One line that a person recognises it by.
    pub fn summary(&self) -> String {
        format!("{} {}", self.method.as_str(), self.url)
    }

    /// Whether an answer with this status is a success.
    pub fn is_expected(&self, status: u16) -> bool {
        if self.expect.is_empty() { (200..300).contains(&status) } else { self.expect.contains(&status) }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first that is wrong, as a path below the step.
    pub(super) fn validate(&self, is_template: bool) -> Result<(), Invalid> {
        if self.body.is_some() && self.json.is_some() {
            return Err(Invalid::new("http.json", "is one too many: a request has either body or json"));
        }
        if self.headers.len() > limits::STEP_HTTP_HEADERS {
            return Err(Invalid::over(
                "http.headers",
                "STEP_HTTP_HEADERS",
                limits::STEP_HTTP_HEADERS,
                "headers",
            ));
        }
        if let Some(status) = self.expect.iter().find(|status| !(100..600).contains(*status)) {
            let why = format!("has {status}; a status is from 100 to 599");
            return Err(Invalid::new("http.expect", why));
        }
        if self.expect.len() > limits::STEP_HTTP_HEADERS {
            return Err(Invalid::over(
                "http.expect",
                "STEP_HTTP_HEADERS",
                limits::STEP_HTTP_HEADERS,
                "statuses",
            ));
        }
        for name in self.headers.keys() {
            check_header_name(name)?;
        }
        let (mut texts, mut bytes) = (0, 0);
        self.clone().each_text(&mut |field, text, _| {
            texts += usize::from(has_tags(text));
            bytes += text.len();
            match text.contains('\0') {
                true => Err(Invalid::new(field, "has a NUL character")),
                false => Ok(()),
            }
        })?;
        if texts > limits::STEP_TEXTS {
            return Err(Invalid::over("http", "STEP_TEXTS", limits::STEP_TEXTS, "texts that are filled in"));
        }
        let json = self.json.as_ref().map_or(0, |json| json.to_string().len());
        if bytes.max(json) > limits::STEP_HTTP_BODY_BYTES + limits::URL_BYTES {
            return Err(Invalid::over("http", "STEP_HTTP_BODY_BYTES", limits::STEP_HTTP_BODY_BYTES, "bytes"));
        }
        if is_template {
            let server = self.url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
            return match server {
                Some(server) if !has_tags(server) => Ok(()),
                _ => Err(Invalid::new(
                    "http.url",
                    "begins with a scheme and a server that stand there as they are",
                )),
            };
        }
        self.ready().map(|_| ())
    }

    /// The request, if nothing has to be filled in.
    fn ready(&self) -> Result<Ready, Invalid> {
        let url = read_url(&self.url)?;
        let mut headers: Vec<(String, String)> = Vec::with_capacity(self.headers.len() + 1);
        for (name, value) in &self.headers {
            if !value.chars().all(|c| c == '\t' || (' '..='~').contains(&c)) {
                let why = "has characters that no header has: it is one line of ASCII";
                return Err(Invalid::new(format!("http.headers.{name}"), why));
            }
            headers.push((name.clone(), value.clone()));
        }
        let body = match (&self.body, &self.json) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(value)) => {
                if !self.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
                    headers.push(("content-type".to_owned(), "application/json".to_owned()));
                }
                Some(value.to_string())
            }
            (None, None) => None,
        };
        let field = if self.json.is_some() { "http.json" } else { "http.body" };
        if body.as_ref().is_some_and(|body| body.len() > limits::STEP_HTTP_BODY_BYTES) {
            return Err(Invalid::over(field, "STEP_HTTP_BODY_BYTES", limits::STEP_HTTP_BODY_BYTES, "bytes"));
        }
        Ok(Ready { method: self.method, url, headers, body })
    }

    /// The request, filled in where `template` says so.
    ///
    /// # Errors
    /// When a template cannot be filled in, or what comes out is no request.
    pub fn filled(&self, is_template: bool, context: &Context) -> Result<Ready, Invalid> {
        if !is_template {
            return self.ready();
        }
        let (mut filled, bound) = (self.clone(), bind(context));
        filled.each_text(&mut |field, text, quote| {
            *text = render_bound(field, text, &bound, quote)?;
            Ok(())
        })?;
        let path = filled.url.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(Invalid::new("http.url", "has a part of its path that a value makes '.' or '..'"));
        }
        // What was filled in may be nobody's business.
        filled.ready().map_err(|invalid| match invalid.field.as_str() {
            "http.url" => Invalid::new("http.url", "is no address once it is filled in"),
            _ => invalid,
        })
    }

    /// Checks the templates in it.
    pub(super) fn check_templates(
        &self,
        path: &impl Fn(&str) -> String,
        names: &Names,
    ) -> Result<(), Invalid> {
        self.clone().each_text(&mut |field, text, quote| check_template(&path(field), text, quote, names))
    }

    /// The dotted paths that its templates read.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn used(&self) -> Result<Vec<String>, Invalid> {
        let mut all = Vec::new();
        self.clone().each_text(&mut |field, text, _| {
            all.extend(used(field, text)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn each_text(
        &mut self,
        visit: &mut impl FnMut(&str, &mut String, Quote) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        visit("http.url", &mut self.url, Quote::Url)?;
        for (name, value) in &mut self.headers {
            visit(&format!("http.headers.{name}"), value, Quote::None)?;
        }
        if let Some(body) = &mut self.body {
            visit("http.body", body, Quote::None)?;
        }
        match &mut self.json {
            Some(json) => each_leaf("http.json", json, &mut |field, text| visit(field, text, Quote::None)),
            None => Ok(()),
        }
    }
}

/// Visits each text of a JSON value with its path; names of fields are none of its texts.
pub(super) fn each_leaf(
    path: &str,
    value: &mut Value,
    visit: &mut impl FnMut(&str, &mut String) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    match value {
        Value::String(text) => visit(path, text),
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(index, item)| each_leaf(&format!("{path}[{index}]"), item, visit)),
        Value::Object(map) => {
            map.iter_mut().try_for_each(|(name, value)| each_leaf(&format!("{path}.{name}"), value, visit))
        }
        _ => Ok(()),
    }
}

fn read_url(text: &str) -> Result<Url, Invalid> {
    let field = "http.url";
    if text.len() > limits::URL_BYTES {
        return Err(Invalid::over(field, "URL_BYTES", limits::URL_BYTES, "bytes"));
    }
    let url = Url::parse(text).map_err(|error| Invalid::new(field, format!("is '{text}': {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Invalid::new(field, format!("is '{text}', which is neither http:// nor https://")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid::new(field, "has a user or a password; send them in a header"));
    }
    Ok(url)
}

/// A token (RFC 9110, 5.6.2), and none that the connection needs for itself.
fn check_header_name(name: &str) -> Result<(), Invalid> {
    let is_token =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
    if !is_token {
        return Err(Invalid::new("http.headers", format!("has '{name}', which is no name of a header")));
    }
    if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(Invalid::new("http.headers", format!("has '{name}', which the connection sets itself")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn http(url: &str) -> Http {
        Http { url: url.to_owned(), ..Http::default() }
    }

    fn context() -> Context {
        let mut context = Context::default();
        context.params.0.insert("name".to_owned(), json!("a/b?c=\"d\"\r\nx: y"));
        context
    }

    #[test]
    fn values_stay_where_they_are_put() {
        let mut request = http("https://example.org/hosts/{{ params.name }}?q={{ params.name }}");
        request.json = Some(json!({ "text": "is {{ params.name }}", "list": ["{{ params.name }}", 3] }));
        let ready = request.filled(true, &context()).unwrap();
        let encoded = "a%2Fb%3Fc%3D%22d%22%0D%0Ax%3A%20y";
        assert_eq!(ready.url.as_str(), format!("https://example.org/hosts/{encoded}?q={encoded}"));
        let sent: Value = serde_json::from_str(&ready.body.unwrap()).unwrap();
        assert_eq!(sent["text"], "is a/b?c=\"d\"\r\nx: y");
        assert_eq!(sent["list"][1], 3);
        assert_eq!(ready.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    }

    #[test]
    fn a_value_makes_no_further_header() {
        let mut request = http("https://example.org/");
        request.headers.insert("x-name".to_owned(), "{{ params.name }}".to_owned());
        let refused = request.filled(true, &context()).unwrap_err();
        assert_eq!(refused.field, "http.headers.x-name");
    }

    #[test]
    fn a_value_leads_nowhere_else() {
        for url in
            ["https://{{ params.name }}.example.org/", "{{ params.url }}", "https://x{{ params.name }}"]
        {
            assert_eq!(http(url).validate(true).unwrap_err().field, "http.url", "{url}");
        }
        let request = http("https://example.org/hosts/{{ params.name }}/off");
        request.validate(true).unwrap();
        let mut context = context();
        for up in [".", ".."] {
            context.params.0.insert("name".to_owned(), json!(up));
            assert_eq!(request.filled(true, &context).unwrap_err().field, "http.url");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_field() {
        let with = |change: fn(&mut Http)| {
            let mut request = http("https://example.org/");
            change(&mut request);
            request.validate(false).unwrap_err().field
        };
        assert_eq!(with(|r| r.url = "file:///etc/passwd".into()), "http.url");
        assert_eq!(with(|r| r.url = "https://me:secret@example.org".into()), "http.url");
        assert_eq!(with(|r| r.url = "no address".into()), "http.url");
        assert_eq!(with(|r| r.url = format!("https://example.org/{}", "x".repeat(9000))), "http.url");
        assert_eq!(with(|r| r.expect = vec![99]), "http.expect");
        assert_eq!(with(|r| drop(r.headers.insert("Host".into(), "x".into()))), "http.headers");
        assert_eq!(with(|r| drop(r.headers.insert("a b".into(), "x".into()))), "http.headers");
        assert_eq!(with(|r| drop(r.headers.insert("a".into(), "x\ny".into()))), "http.headers.a");
        assert_eq!(
            with(|r| {
                r.body = Some("x".into());
                r.json = Some(json!(1));
            }),
            "http.json"
        );
        assert_eq!(with(|r| r.body = Some("x".repeat(limits::STEP_HTTP_BODY_BYTES + 1))), "http.body");
        http("http://127.0.0.1:8080/x?y=z").validate(false).unwrap();
    }
}
