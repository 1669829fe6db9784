//! keyframed: DensePose in, avatar out.

// What comes from outside must not end the program: see docs/reliability.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unimplemented
    )
)]

fn main() -> std::process::ExitCode {
    keyframed::main()
}
