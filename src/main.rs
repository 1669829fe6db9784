//! keyframed: DensePose in, avatar out.

fn main() -> std::process::ExitCode {
    keyframed::main()
}
