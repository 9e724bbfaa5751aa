//! People of a World: invited, with a password of their own, logged in.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use crate::{
    Api, World,
    world::{ADMINISTRATOR, PASSWORD},
};

/// An address of this machine that nobody else uses: tries to enter are limited by address.
pub fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) % (254 * 254);
    let (high, low) =
        (u8::try_from(next / 254).expect("below 254"), u8::try_from(next % 254).expect("below 254"));
    IpAddr::from(Ipv4Addr::new(127, 1, high, low + 1))
}

/// The password of everybody but the administrator.
pub fn password_of(name: &str) -> String {
    format!("the long password no. {}", name.len())
}

impl World {
    /// Everything that a login answers.
    pub async fn log_in(&self, user: &str, password: &str, organization: Option<&str>) -> Value {
        let request = json!({ "user": user, "password": password, "organization": organization });
        self.stranger().post("/api/v1/auth/login", &request).await.accepted().value()
    }

    /// The API without a credential, from an address of its own.
    pub fn stranger(&self) -> Api {
        self.api_as_nobody().from(address())
    }

    /// The API with a session of the administrator's.
    pub async fn administrator(&self) -> Api {
        self.session(&self.log_in(ADMINISTRATOR, PASSWORD, None).await)
    }

    /// The API with the session that a login answered.
    pub fn session(&self, tokens: &Value) -> Api {
        self.api_as(tokens["access_token"].as_str().expect("it has an access token")).from(address())
    }

    /// Makes somebody a member of the administrator's organization, with this role if any; the API with that one's session.
    pub async fn person(&self, name: &str, role: Option<&str>) -> Api {
        self.person_of(&self.administrator().await, name, role, None).await
    }

    /// As [`Self::person`], in the organization in which `administrator` works.
    pub async fn person_of(
        &self,
        administrator: &Api,
        name: &str,
        role: Option<&str>,
        organization: Option<&str>,
    ) -> Api {
        let invitation =
            administrator.post("/api/v1/invitations", &json!({ "role": role })).await.accepted().value();
        let accept = json!({ "token": invitation["token"], "user": name, "password": password_of(name) });
        self.stranger().post("/api/v1/auth/accept-invitation", &accept).await.accepted();
        self.session(&self.log_in(name, &password_of(name), organization).await)
    }
}
