//! Turns arguments into a command and a command into an exit status.

fn main() {}
