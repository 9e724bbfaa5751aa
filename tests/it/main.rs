//! The integration tests: one module a subject.

#![allow(clippy::disallowed_methods, reason = "a test is at the present time")]

mod access;
mod architecture;
mod bad_input;
mod chaos;
mod dispatch;
mod enroll;
mod exec;
mod output;
mod platform;
mod renew;
mod survive;
