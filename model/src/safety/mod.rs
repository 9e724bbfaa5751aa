//! Which commands are dangerous: what a shell line would do, judged before it runs.
