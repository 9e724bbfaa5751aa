//! `opsctl enroll-token`: how a new host proves that it is expected.

use anyhow::Result;
use model::api::enroll_token::{CreateEnrollToken, CreatedEnrollToken, EnrollToken};
use reqwest::Url;

use crate::{
    args::EnrollTokenCommand,
    client::Client,
    clock,
    context::is_loopback,
    exit::{Exit, Usage},
    output::{self, Format, human},
};

const ENROLL_TOKENS: [&str; 3] = ["api", "v1", "enroll-tokens"];

/// # Errors
/// As the requests, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, command: EnrollTokenCommand) -> Result<Exit> {
    match command {
        EnrollTokenCommand::Create { ttl, label, max_uses, address_range, shown } => {
            let mut body =
                CreateEnrollToken { ttl_seconds: ttl, max_uses, address_range, ..Default::default() };
            for (key, value) in label {
                if body.labels.insert(key.clone(), value).is_some() {
                    return Err(Usage(format!("the label '{key}' is given twice")).into());
                }
            }
            body.validate().map_err(|invalid| Usage(invalid.to_string()))?;
            let created: CreatedEnrollToken = client.post(&ENROLL_TOKENS, &body).await?;
            output::show(shown.output, &created, |created| describe(client, created))?;
            if shown.output == Format::Table
                && let Some(hint) = hint(client.addr())
            {
                output::note(&hint);
            }
        }
        EnrollTokenCommand::List(shown) => {
            let now = clock::now();
            let header = &["ID", "USES", "EXPIRES", "CREATED BY", "ADDRESS RANGE", "LABELS"];
            let pages = client.pages(&ENROLL_TOKENS, Vec::new(), None);
            output::list(pages, shown.output, header, |token: &EnrollToken| {
                vec![
                    token.id.to_string(),
                    format!("{} of {}", token.uses, token.max_uses),
                    human::relative(token.expires_at, now),
                    token.created_by.clone(),
                    human::or_dash(token.address_range.as_ref()),
                    human::pairs(&token.labels),
                ]
            })
            .await?;
        }
        EnrollTokenCommand::Delete { id } => {
            let [api, version, tokens] = ENROLL_TOKENS;
            client.delete(&[api, version, tokens, &id.to_string()]).await?;
            output::note(&format!("the enroll token {id} is worthless now"));
        }
    }
    Ok(Exit::Succeeded)
}

fn describe(client: &Client, created: &CreatedEnrollToken) -> String {
    let token = &created.enroll_token;
    let host = host(client.addr());
    format!(
        "{}\n\nFor {}, until {}. Type on the new host:\n\n  \
         opsconductor-agent enroll --controller {host}:{} --token {}\n",
        created.token,
        human::count(token.max_uses, "host"),
        human::moment(token.expires_at, clock::now()),
        created.agent_port,
        created.token,
    )
}

fn host(addr: &Url) -> &str {
    addr.host_str().unwrap_or("localhost")
}

/// The address by which this host reaches its own controller is of no use to others.
fn hint(addr: &Url) -> Option<String> {
    is_loopback(addr).then(|| format!("on other hosts, replace {} by this controller's address", host(addr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_means_this_host_is_pointed_out() {
        for (addr, want) in [
            ("http://127.0.0.1:8080", Some("replace 127.0.0.1 by")),
            ("http://[::1]:8080", Some("replace [::1] by")),
            ("http://localhost", Some("replace localhost by")),
            ("https://controller.example", None),
            ("https://192.0.2.7", None),
        ] {
            let hint = hint(&addr.parse().unwrap());
            assert_eq!(hint.is_some(), want.is_some(), "{addr}");
            assert!(want.is_none_or(|want| hint.unwrap().contains(want)), "{addr}");
        }
    }
}
