//! `keyframed-train`: makes the models of keyframed.
fn main() -> anyhow::Result<()> {
    keyframed_train::cli::main()
}
