//! The wire between controller and agent: generated code, and the conversions to and from `model`.
//!
//! What arrives is hostile until a conversion here has checked it.

#![allow(clippy::all, missing_debug_implementations, reason = "of the generated code only")]

mod convert;

tonic::include_proto!("opsconductor.v1");
