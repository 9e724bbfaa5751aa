//! Tests of control groups: with those of this host, and with folders that look like them.

mod fake;
mod real;

use super::{
    host::{Hierarchy, Host, Place},
    *,
};

const NOTHING: Limits =
    Limits { memory_bytes: None, pids: None, cpu_percent: None, io_bytes_per_second: None };
const EVERYTHING: Limits = Limits {
    memory_bytes: Some(64 << 20),
    pids: Some(8),
    cpu_percent: Some(250),
    io_bytes_per_second: Some(1 << 20),
};
const ALL_NAMES: [&str; 4] = [MEMORY_LIMIT, PIDS_LIMIT, CPU_LIMIT, IO_LIMIT];
