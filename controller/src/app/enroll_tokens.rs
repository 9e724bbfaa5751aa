//! Making and deleting enroll tokens.

use model::{
    Invalid,
    api::enroll_token::{CreateEnrollToken, CreatedEnrollToken, EnrollToken},
    id::EnrollTokenId,
};
use serde_json::json;

use super::{
    App,
    access::{Authorized, EnrollTokenManage},
};
use crate::{
    clock,
    error::{During, Error, Result},
    store::{self, audit},
};

/// Makes a token; its text is in the answer and nowhere else.
///
/// # Errors
/// When a field is wrong.
pub(crate) async fn create(
    app: &App,
    by: &Authorized<EnrollTokenManage>,
    request: CreateEnrollToken,
) -> Result<CreatedEnrollToken> {
    request.validate()?;
    if let Some(range) = &request.address_range {
        check_range(range)?;
    }
    let now = clock::now();
    let secret = pki::token::EnrollToken {
        id: EnrollTokenId::new(now, clock::entropy()),
        secret: pki::random().into(),
        root_pin: app.info.root_pin,
    };
    let token = EnrollToken {
        id: secret.id,
        max_uses: request.max_uses(),
        uses: 0,
        created_at: now,
        created_by: by.actor().name.clone(),
        expires_at: now + jiff::SignedDuration::from_secs(request.ttl_seconds()),
        labels: request.labels,
        address_range: request.address_range,
    };
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    store::enroll_tokens::insert(&mut tx, by.org_id(), &token, &pki::token::hash_secret(&secret.secret[..]))
        .await?;
    let detail =
        json!({ "labels": token.labels, "max_uses": token.max_uses, "expires_at": token.expires_at });
    let entry = by.entry("enroll_token.create", format!("enroll-token/{}", token.id), detail);
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")?;
    Ok(CreatedEnrollToken { enroll_token: token, token: secret.reveal(), agent_port: app.info.agent_port })
}

/// Deletes a token: nobody can enroll with it any more.
///
/// # Errors
/// When there is none of this id.
pub(crate) async fn delete(app: &App, by: &Authorized<EnrollTokenManage>, id: EnrollTokenId) -> Result<()> {
    let now = clock::now();
    let mut tx = app.db.of(by.org_id()).begin().await.during("begin")?;
    if !store::enroll_tokens::delete(&mut tx, by.org_id(), id).await? {
        return Err(Error::not_found("enroll token", id.to_string()));
    }
    let entry = by.entry("enroll_token.delete", format!("enroll-token/{id}"), json!({}));
    audit::record(&mut tx, by.org_id(), now, entry).await?;
    tx.commit().await.during("commit")
}

/// An address, a slash, and as many bits as the address has or fewer; no bit set behind them.
fn check_range(range: &str) -> Result<(), Invalid> {
    let invalid = || Invalid::new("address_range", "is not an address range such as 10.1.0.0/16 or fd00::/8");
    let (address, bits) = range.split_once('/').ok_or_else(invalid)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| invalid())?;
    let bits: u32 = bits.parse().map_err(|_| invalid())?;
    let (value, width) = match address {
        std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        std::net::IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    if bits > width {
        return Err(invalid());
    }
    let host_bits = width - bits;
    let host_mask = if host_bits == 128 { u128::MAX } else { (1_u128 << host_bits) - 1 };
    if value & host_mask != 0 {
        return Err(Invalid::new("address_range", format!("has bits set behind its first {bits}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_range;

    #[test]
    fn ranges() {
        for good in ["10.1.0.0/16", "0.0.0.0/0", "127.0.0.1/32", "fd00::/8", "::/0"] {
            assert!(check_range(good).is_ok(), "{good}");
        }
        for bad in ["10.1.0.1/16", "10.1.0.0", "10.1.0.0/33", "x/8", "10.0.0.0/-1", "::1/0"] {
            assert!(check_range(bad).is_err(), "{bad}");
        }
    }
}
