//! Jobs: work that a team keeps. The document, its parameters and the graph of its steps.

