//! Certificates, signatures, sealed messages and TLS configurations: bytes in, bytes out.
//!
//! - There are no files, no clock and no runtime here: the time is an argument, what must be kept is handed back.
//! - Each side trusts only the other's intermediate: agents the controllers', controllers the agents'. The root is
//!   trusted at one moment alone, at enrollment, and only by its pin.
//! - What a peer says about itself counts for nothing; its one URI (see [`identity`]) does.
//! - Private keys have no readable `Debug`; what leaves this crate of them is wiped when it is dropped.

pub mod access_token;
pub mod audit;
pub mod authority;
mod certificate;
mod csr;
pub mod derived;
pub mod door;
mod ed25519;
pub mod envelope;
mod error;
pub mod id_token;
pub mod identity;
pub mod pem;
pub mod result_key;
pub mod seal;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod token;

pub use authority::{Authority, AuthorityPem, NewAuthority, ServerIdentity};
pub use envelope::{DispatchKey, Signature, Signer, Verifier};
pub use error::{CertificateFault, CsrFault, Error};
pub use identity::{AgentIdentity, AgentKey, new_agent_key_and_csr};
pub use result_key::{ResultKey, verify_result};
pub use seal::{SealKey, Sealed, seal};
pub use token::{ApiToken, EnrollToken, JoinToken, OneTimeToken, RefreshToken, SetupToken, hash_secret};

/// Makes aws-lc-rs the provider that rustls uses where none is named. May be called again and again.
pub fn install_provider() {
    // An error says that there is a default already, which is what was wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// `N` unpredictable bytes.
///
/// # Panics
/// When the operating system has no randomness to give; nothing here would be safe after that.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}
