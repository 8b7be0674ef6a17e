//! The command line of kometa-authd.
fn main() {}
