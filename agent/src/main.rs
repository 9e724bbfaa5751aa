//! The agent's program. A shim is dispatched before anything else begins: it must stay small and single-threaded.

use std::{ffi::OsStr, path::Path, process::ExitCode};

use opsconductor_agent::{cli, shim};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new("shim"))
        && let Some(folder) = arguments.next()
    {
        return shim::main(Path::new(&folder));
    }
    cli::main()
}
